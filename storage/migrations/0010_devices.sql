-- Devices as clients register them, their push tokens, notifications and what became of each on its way. Whether a device
-- is connected at this moment is Redis's to say; here stands what it last told of itself.

ALTER TABLE devices
    ADD COLUMN device_name text NOT NULL DEFAULT '' CHECK (length(device_name) <= 255),
    ADD COLUMN device_type text NOT NULL DEFAULT 'desktop' CHECK (device_type IN ('desktop', 'mobile')),
    ADD COLUMN platform text NOT NULL DEFAULT '' CHECK (length(platform) <= 50),
    ADD COLUMN platform_version text CHECK (length(platform_version) <= 100),
    ADD COLUMN app_version text NOT NULL DEFAULT '' CHECK (length(app_version) <= 50),
    ADD COLUMN local_ips jsonb,
    ADD COLUMN public_ip inet,
    ADD COLUMN available_ports jsonb,
    ADD COLUMN relay_eligible boolean NOT NULL DEFAULT false,
    ADD COLUMN capabilities jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN status text NOT NULL DEFAULT 'offline' CHECK (status IN ('online', 'away', 'offline')), -- as it was told
    ADD COLUMN last_heartbeat timestamptz,
    ADD COLUMN cpu_usage numeric(5, 2) CHECK (cpu_usage BETWEEN 0 AND 100),
    ADD COLUMN memory_usage numeric(5, 2) CHECK (memory_usage BETWEEN 0 AND 100),
    ADD COLUMN disk_space_gb bigint CHECK (disk_space_gb >= 0),
    ADD COLUMN active_jobs integer NOT NULL DEFAULT 0 CHECK (active_jobs >= 0),
    ADD COLUMN registered_at timestamptz, -- null: known from a sign-in or a push token alone, and listed nowhere
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    ADD CHECK (device_type <> 'desktop' OR registered_at IS NULL OR platform IN ('macos', 'windows', 'linux'));
CREATE INDEX devices_alive ON devices (last_heartbeat) WHERE status <> 'offline';

-- What devices were like over time: a row where the status changes, and one every few minutes; old ones are dropped.
CREATE TABLE device_presence_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    status text NOT NULL CHECK (status IN ('online', 'away', 'offline')),
    cpu_usage numeric(5, 2),
    memory_usage numeric(5, 2),
    disk_space_gb bigint,
    active_jobs integer,
    at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX device_presence_history_device ON device_presence_history (user_id, device_id, at DESC);
CREATE INDEX device_presence_history_at ON device_presence_history (at);

-- A token is the address of an app on a phone: whoever brought it last has it, for iOS makes a new device at a sign-out
-- and keeps its token. A row is never given to another device: what was to be sent to its token goes with it.
CREATE TABLE push_tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    platform text NOT NULL CHECK (platform IN ('ios', 'android')),
    token text NOT NULL CHECK (length(token) BETWEEN 1 AND 4096),
    environment text CHECK (environment IN ('production', 'sandbox')), -- APNs's; null: not known yet
    registered_at timestamptz NOT NULL DEFAULT now(), -- when the device last brought it
    last_success_at timestamptz,
    UNIQUE (platform, token),
    UNIQUE (user_id, device_id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);

-- What is silent is for apps and in no list; it goes when its time to be delivered is over.
CREATE TABLE notifications (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,63}$'),
    job_id text CHECK (length(job_id) <= 255),
    title text NOT NULL,
    body text NOT NULL,
    custom_data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(custom_data) = 'object'),
    is_silent boolean NOT NULL,
    idempotency_key text CHECK (length(idempotency_key) <= 255),
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    deliver_until timestamptz NOT NULL,
    UNIQUE (user_id, idempotency_key)
);
CREATE INDEX notifications_list ON notifications (user_id, created_at DESC, id DESC) WHERE NOT is_silent;
CREATE INDEX notifications_age ON notifications (created_at);
CREATE INDEX notifications_silent ON notifications (deliver_until) WHERE is_silent;

-- One for each token that a notification is to reach. Whoever claims it has it until `next_attempt_at`.
CREATE TABLE notification_deliveries (
    notification_id uuid NOT NULL REFERENCES notifications ON DELETE CASCADE,
    token_id uuid NOT NULL REFERENCES push_tokens ON DELETE CASCADE,
    user_id uuid NOT NULL,
    platform text NOT NULL CHECK (platform IN ('ios', 'android')),
    push_id uuid NOT NULL DEFAULT gen_random_uuid(), -- the same at every attempt
    state text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sent', 'failed', 'expired')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    reason text CHECK (length(reason) <= 500),
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (notification_id, token_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02); -- each is written three times in a second, then kept for months
CREATE INDEX notification_deliveries_due ON notification_deliveries (platform, next_attempt_at) WHERE state = 'due';
CREATE INDEX notification_deliveries_token ON notification_deliveries (token_id);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['device_presence_history', 'push_tokens', 'notifications', 'notification_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id())', name || '_own', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_operator USING (true) WITH CHECK (true)', name || '_operator', name);
    END LOOP;
END
$$;

GRANT UPDATE ON devices TO cloche_request;
GRANT SELECT, INSERT ON device_presence_history TO cloche_request;
GRANT SELECT, DELETE ON notifications TO cloche_request;
GRANT UPDATE (read_at) ON notifications TO cloche_request;
GRANT SELECT, INSERT, DELETE ON device_presence_history TO cloche_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON push_tokens, notifications, notification_deliveries TO cloche_operator;
