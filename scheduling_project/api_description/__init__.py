"""What the OpenAPI document holds beside its operations: an example of each request, and the webhooks that we send."""
