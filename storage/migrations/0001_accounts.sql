-- Accounts: who may call, what they own, and the two roles that see it.
--
-- cloche_request serves one user's request and sees that user's rows alone: the user is set for one transaction,
-- set_config('app.user_id', …, true). cloche_operator runs background jobs and may see every row, by policies of its own.
-- Neither owns a table, neither can log in, neither can bypass row-level security. A server logs in as a role that is a
-- member of both (cloche_server, or one of the operator's making) and takes one of them in every transaction.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_request') THEN
        CREATE ROLE cloche_request NOLOGIN NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_operator') THEN
        CREATE ROLE cloche_operator NOLOGIN NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cloche_server') THEN
        CREATE ROLE cloche_server LOGIN NOINHERIT NOBYPASSRLS;
    END IF;
    GRANT cloche_request TO cloche_server;
    GRANT cloche_operator TO cloche_server;
EXCEPTION
    -- Roles belong to the whole cluster: another database may be migrated at this very moment.
    WHEN duplicate_object OR unique_violation OR internal_error THEN NULL;
END
$$;

CREATE FUNCTION app_user_id() RETURNS uuid
    LANGUAGE sql STABLE
    RETURN nullif(current_setting('app.user_id', true), '')::uuid;

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 255),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- Identity only: a device is known by its user and its own id, which the client chose.
CREATE TABLE devices (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    device_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, device_id)
);

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
ALTER TABLE devices ENABLE ROW LEVEL SECURITY;
ALTER TABLE devices FORCE ROW LEVEL SECURITY;

CREATE POLICY users_own ON users FOR SELECT TO cloche_request USING (id = app_user_id());
CREATE POLICY users_operator ON users TO cloche_operator USING (true) WITH CHECK (true);
CREATE POLICY devices_own ON devices TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id());
CREATE POLICY devices_operator ON devices TO cloche_operator USING (true) WITH CHECK (true);

GRANT SELECT ON users TO cloche_request;
GRANT SELECT, INSERT, UPDATE, DELETE ON users TO cloche_operator;
GRANT SELECT, INSERT, DELETE ON devices TO cloche_request;
GRANT SELECT, INSERT, UPDATE, DELETE ON devices TO cloche_operator;
