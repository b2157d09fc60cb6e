"""What must hold however rows are changed: by the API, the admin, in bulk or in plain SQL."""

from django.db import migrations

# What processes keep in memory has one version, renewed in the transaction of any change. Columns that live
# traffic writes (counts, last use) are left out, so that it never renews the version.
CATALOG_COLUMNS = {
    "triggers_trigger": (
        "name, endpoint_id, event_types, pattern, authentication, workflow_id, input, priority, queue, retry_policy, "
        "timeout, concurrency_key, throttle, debounce, batch, max_activations, start_at, end_at, enabled"
    ),
    "triggers_webhookendpoint": (
        "slug, token, scheme, scheme_config, require_api_key, methods, allowed_networks, max_body_bytes, "
        "rate_per_minute, burst, caller_rate_per_minute, when_redis_is_away, type_from, dedup, dedup_path, dedup_window, response_mode, state"
    ),
    "triggers_endpointsecret": "endpoint_id, ciphertext, expires_at",
    "triggers_apikey": "digest, user_id, scopes, allowed_networks, expires_at, revoked_at",
    "execution_workflow": "name, published_id, priority, queue",
}
CATALOG = """
CREATE FUNCTION triggers_renew_catalog() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO triggers_catalog (id, version) VALUES (1, gen_random_uuid())
    ON CONFLICT (id) DO UPDATE SET version = excluded.version;
    RETURN NULL;
END $$;
INSERT INTO triggers_catalog (id, version) VALUES (1, gen_random_uuid());
""" + "".join(
    f"""
CREATE TRIGGER triggers_renew_catalog AFTER INSERT OR DELETE OR UPDATE OF {columns} ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION triggers_renew_catalog();
"""
    for table, columns in CATALOG_COLUMNS.items()
    if table != "execution_workflow"
) + f"""
CREATE TRIGGER triggers_renew_catalog AFTER UPDATE OF {CATALOG_COLUMNS["execution_workflow"]} ON execution_workflow
    FOR EACH STATEMENT EXECUTE FUNCTION triggers_renew_catalog();
"""
NO_CATALOG = "".join(
    f"DROP TRIGGER triggers_renew_catalog ON {table};\n" for table in CATALOG_COLUMNS
) + "DROP FUNCTION triggers_renew_catalog();"

# Which triggers want news of executions: those that name a type "execution.…", exactly or by a prefix. A bare "*"
# does not, or every such trigger would listen to its own executions.
WATCHES = """
CREATE FUNCTION triggers_keep_watches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.watches = NEW.enabled AND NEW.endpoint_id IS NULL AND EXISTS (
        SELECT 1 FROM jsonb_array_elements_text(NEW.event_types) AS wanted (type)
        WHERE starts_with(wanted.type, 'execution.')
    );
    RETURN NEW;
END $$;
CREATE TRIGGER triggers_keep_watches BEFORE INSERT OR UPDATE ON triggers_trigger
    FOR EACH ROW EXECUTE FUNCTION triggers_keep_watches();
"""
NO_WATCHES = "DROP TRIGGER triggers_keep_watches ON triggers_trigger; DROP FUNCTION triggers_keep_watches();"

# A change of an execution's state becomes news in the transaction of the change, if a trigger wants it and only
# then. The engine knows nothing of it.
NEWS = """
CREATE FUNCTION triggers_tell(execution_id uuid, subject text, type text, data jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM triggers_trigger t, jsonb_array_elements_text(t.event_types) AS wanted (type)
        WHERE t.watches AND (wanted.type = triggers_tell.type OR (
            right(wanted.type, 1) = '*' AND starts_with(triggers_tell.type, left(wanted.type, -1))))
    ) THEN
        INSERT INTO execution_news (topic, execution_id, subject, data, created_at)
        VALUES ('execution', triggers_tell.execution_id, triggers_tell.subject,
                triggers_tell.data || jsonb_build_object('type', triggers_tell.type), clock_timestamp());
    END IF;
END $$;
CREATE FUNCTION triggers_execution_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM triggers_tell(NEW.id, '', CASE
        WHEN NEW.state = 'running' AND OLD.state IN ('scheduled', 'queued') THEN 'execution.started'
        WHEN OLD.state = 'paused' AND NEW.finished_at IS NULL THEN 'execution.resumed'
        WHEN OLD.finished_at IS NOT NULL AND NEW.finished_at IS NULL THEN 'execution.reopened'
        ELSE 'execution.' || NEW.state END,
        jsonb_build_object('state', NEW.state, 'before', OLD.state));
    RETURN NULL;
END $$;
CREATE TRIGGER triggers_execution_changed AFTER UPDATE OF state ON execution_execution FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION triggers_execution_changed();
CREATE FUNCTION triggers_letter_arrived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM triggers_tell(NEW.execution_id, NEW.id::text, 'execution.dead_lettered',
        jsonb_build_object('dead_letter', NEW.id));
    RETURN NULL;
END $$;
CREATE TRIGGER triggers_letter_arrived AFTER INSERT ON execution_deadletter FOR EACH ROW
    EXECUTE FUNCTION triggers_letter_arrived();
"""
NO_NEWS = """
DROP TRIGGER triggers_execution_changed ON execution_execution;
DROP TRIGGER triggers_letter_arrived ON execution_deadletter;
DROP FUNCTION triggers_execution_changed(), triggers_letter_arrived(), triggers_tell(uuid, text, text, jsonb);
"""


class Migration(migrations.Migration):
    dependencies = [("triggers", "0001_initial"), ("execution", "0002_items_failed_and_news_topic")]

    operations = [
        migrations.RunSQL(CATALOG, NO_CATALOG),
        migrations.RunSQL(WATCHES, NO_WATCHES),
        migrations.RunSQL(NEWS, NO_NEWS),
    ]
