-- Money: an append-only ledger, the balance that is its sum, and the holds of running calls. US dollars, six places.

CREATE TABLE credit_balances (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    balance_usd numeric(18, 6) NOT NULL DEFAULT 0,
    held_usd numeric(18, 6) NOT NULL DEFAULT 0 CHECK (held_usd >= 0)
);

CREATE TABLE credit_ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('grant', 'purchase', 'charge', 'correction', 'refund', 'adjustment', 'expiry')),
    amount_usd numeric(18, 6) NOT NULL,
    idempotency_key text NOT NULL UNIQUE,
    hold_id uuid,
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX credit_ledger_user ON credit_ledger (user_id, id);

-- The balance follows the ledger by this trigger and in no other way: no role may write balance_usd.
CREATE FUNCTION book_ledger_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO credit_balances (user_id, balance_usd) VALUES (NEW.user_id, NEW.amount_usd)
    ON CONFLICT (user_id) DO UPDATE SET balance_usd = credit_balances.balance_usd + excluded.balance_usd;
    RETURN NULL;
END
$$;
CREATE TRIGGER credit_ledger_book AFTER INSERT ON credit_ledger FOR EACH ROW EXECUTE FUNCTION book_ledger_row();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the credit ledger is append-only: book a correction instead';
END
$$;
CREATE TRIGGER credit_ledger_append_only BEFORE UPDATE OR TRUNCATE ON credit_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row a call. `state` is `held` while it runs; whoever finds it expired settles it from what is known (`progress`).
-- A call that turns out to live after all corrects the charge by the difference when it ends.
CREATE TABLE holds (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    amount_usd numeric(18, 6) NOT NULL CHECK (amount_usd >= 0),
    state text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'expired', 'settled')),
    model_id text NOT NULL,
    provider_code text NOT NULL,
    task_type text NOT NULL,
    price jsonb NOT NULL,
    prompt_tokens bigint NOT NULL,
    idempotency_key text,
    progress jsonb NOT NULL DEFAULT '{}',
    charged_usd numeric(18, 6) NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    settled_at timestamptz
);
CREATE INDEX holds_user ON holds (user_id, created_at);
CREATE INDEX holds_expiry ON holds (expires_at) WHERE state = 'held';
-- The same key twice is the same request twice: refused while the first runs and after it was answered.
CREATE UNIQUE INDEX holds_idempotency ON holds (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE usage (
    request_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    model_id text NOT NULL,
    provider_code text NOT NULL,
    task_type text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('completed', 'cancelled', 'failed')),
    provisional boolean NOT NULL,
    input_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    cost_usd numeric(18, 6) NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX usage_user ON usage (user_id, ended_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['credit_balances', 'credit_ledger', 'holds', 'usage'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id())', name || '_own', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_operator USING (true) WITH CHECK (true)', name || '_operator', name);
    END LOOP;
END
$$;

-- The trigger acts as the tables' owner, whom FORCE binds as well.
CREATE POLICY credit_balances_booking ON credit_balances TO CURRENT_USER USING (true) WITH CHECK (true);

-- A request may hold money and give it back; only an operator's transaction charges, grants or refunds.
GRANT SELECT, UPDATE (held_usd) ON credit_balances TO cloche_request;
GRANT SELECT ON credit_ledger, usage TO cloche_request;
GRANT SELECT, INSERT (id, user_id, amount_usd, model_id, provider_code, task_type, price, prompt_tokens, idempotency_key,
    expires_at) ON holds TO cloche_request;
GRANT SELECT, INSERT, UPDATE (held_usd) ON credit_balances TO cloche_operator;
GRANT SELECT, INSERT ON credit_ledger TO cloche_operator;
GRANT SELECT, INSERT, UPDATE ON holds, usage TO cloche_operator;
