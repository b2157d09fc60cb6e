"""What `manage.py doctor` finds: whether the servers, the installation and the work under way are as they should be."""
