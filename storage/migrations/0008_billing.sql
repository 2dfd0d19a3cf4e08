-- Billing: free and paid credits, spending limits, Stripe's customers, purchases and events. US dollars; cents where
-- Stripe counts in them.

-- A balance has two parts: free credits, which expire, and paid ones, which may be negative: that is a debt. What calls
-- hold has the same two parts, so that free credits that a running call holds outlive their day. `free_lot` numbers the
-- lots of free credits. What is given while a lot lives joins it. Once it has expired, what is given is a new lot, and
-- what comes back from calls to the old one expires at once.
--
-- Whoever changes the money of a user locks the row of its balance first, in a statement of its own: what comes after
-- that sees all that others have done. So every user has that row, from its first moment.
ALTER TABLE credit_balances
    ADD COLUMN free_usd numeric(18, 6) NOT NULL DEFAULT 0,
    ADD COLUMN held_free_usd numeric(18, 6) NOT NULL DEFAULT 0,
    ADD COLUMN free_expires_at timestamptz, -- null: never
    ADD COLUMN free_lot integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT credit_balances_free CHECK (free_usd >= held_free_usd AND held_free_usd BETWEEN 0 AND held_usd);

CREATE INDEX credit_balances_expiry ON credit_balances (free_expires_at) WHERE free_usd > 0;

CREATE FUNCTION open_account() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO credit_balances (user_id) VALUES (NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER users_open_account AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION open_account();
ALTER TABLE users NO FORCE ROW LEVEL SECURITY; -- or the owner sees nobody
INSERT INTO credit_balances (user_id) SELECT id FROM users ON CONFLICT (user_id) DO NOTHING;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
REVOKE INSERT ON credit_balances FROM cloche_operator;

-- What of the free credits a new call may have.
CREATE FUNCTION spare_free_usd(account credit_balances) RETURNS numeric
    LANGUAGE sql STABLE
    RETURN CASE WHEN coalesce(account.free_expires_at > now(), true) THEN account.free_usd - account.held_free_usd ELSE 0 END;

-- What a new call may hold.
CREATE FUNCTION available_usd(account credit_balances) RETURNS numeric
    LANGUAGE sql STABLE
    RETURN (account.balance_usd - account.free_usd) - (account.held_usd - account.held_free_usd) + spare_free_usd(account);

-- The key begins with the user: by an index on `id` alone, a page of one user's rows would be sought among everybody's.
ALTER TABLE credit_ledger
    ADD COLUMN free_usd numeric(18, 6) NOT NULL DEFAULT 0, -- the part of amount_usd that is free credits
    ADD COLUMN free_expires_at timestamptz, -- of free credits that are given
    ADD COLUMN purchase_id uuid,
    ADD COLUMN actor text NOT NULL DEFAULT 'system', -- as in the audit log
    DROP CONSTRAINT credit_ledger_kind_check,
    DROP CONSTRAINT credit_ledger_pkey,
    ADD PRIMARY KEY (user_id, id) INCLUDE (amount_usd, kind),
    ADD CONSTRAINT credit_ledger_kind_check CHECK (kind IN ('grant', 'signup_bonus', 'purchase', 'charge', 'correction',
        'refund', 'adjustment', 'expiry', 'purchase_refund', 'dispute'));

DROP INDEX credit_ledger_user;
CREATE INDEX credit_ledger_bonus ON credit_ledger (user_id, id) WHERE kind = 'signup_bonus';
CREATE INDEX credit_ledger_hold ON credit_ledger (hold_id) WHERE hold_id IS NOT NULL;
CREATE INDEX credit_ledger_purchase ON credit_ledger (purchase_id) WHERE purchase_id IS NOT NULL;

-- The balance follows the ledger by this trigger and in no other way. A lot of free credits lives as long as the longest
-- of what was given to it.
CREATE OR REPLACE FUNCTION book_ledger_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    gives boolean := NEW.kind IN ('grant', 'signup_bonus') AND NEW.free_usd > 0;
BEGIN
    UPDATE credit_balances SET
        balance_usd = balance_usd + NEW.amount_usd,
        free_usd = free_usd + NEW.free_usd,
        free_lot = free_lot + (gives AND (free_lot = 0 OR coalesce(free_expires_at <= now(), false)))::integer,
        free_expires_at = CASE
            WHEN NOT gives THEN free_expires_at
            WHEN free_lot = 0 OR free_expires_at <= now() THEN NEW.free_expires_at
            WHEN free_expires_at IS NULL OR NEW.free_expires_at IS NULL THEN NULL
            ELSE greatest(free_expires_at, NEW.free_expires_at)
        END
    WHERE user_id = NEW.user_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a user without an account: nothing was booked';
    END IF;
    RETURN NULL;
END
$$;

-- `free_usd` is the part of amount_usd that is held on free credits, and charged_free_usd the part of charged_usd that was
-- taken from them: what is given back goes back there, to `free_lot`. `corrections` numbers the ledger's rows for this
-- call.
ALTER TABLE holds
    ADD COLUMN free_usd numeric(18, 6) NOT NULL DEFAULT 0,
    ADD COLUMN charged_free_usd numeric(18, 6) NOT NULL DEFAULT 0,
    ADD COLUMN free_lot integer NOT NULL DEFAULT 0,
    ADD COLUMN refunded_usd numeric(18, 6) NOT NULL DEFAULT 0,
    ADD COLUMN corrections smallint NOT NULL DEFAULT 0,
    ADD COLUMN api_key_id uuid;

CREATE INDEX holds_refunded ON holds (user_id) WHERE refunded_usd > 0; -- few: sums over usage need not read all holds

-- `upstream_id` is the provider's id for the answer, where the provider can tell later what it cost: asked until
-- the charge is provisional no more, or it has been asked too often.
ALTER TABLE usage
    ADD COLUMN api_key_id uuid,
    ADD COLUMN upstream_id text,
    ADD COLUMN checks smallint NOT NULL DEFAULT 0,
    ADD COLUMN next_check_at timestamptz NOT NULL DEFAULT now();

CREATE INDEX usage_unchecked ON usage (next_check_at) WHERE provisional AND upstream_id IS NOT NULL;

-- How much a user, or one API key, may spend in a day or month of UTC. `spent_usd` is what calls have cost that ended
-- since period_start, and held_usd what running calls hold; holds and settlements keep both.
CREATE TABLE spending_limits (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    api_key_id uuid REFERENCES api_keys ON DELETE CASCADE, -- null: all that the user spends
    period text NOT NULL CHECK (period IN ('day', 'month')),
    limit_usd numeric(18, 6) NOT NULL CHECK (limit_usd >= 0),
    alert_percents smallint[] NOT NULL DEFAULT '{50,80,100}',
    period_start timestamptz NOT NULL DEFAULT now(),
    spent_usd numeric(18, 6) NOT NULL DEFAULT 0,
    held_usd numeric(18, 6) NOT NULL DEFAULT 0 CHECK (held_usd >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX spending_limits_scope
    ON spending_limits (user_id, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), period);

-- A new limit knows what was spent in its period, and what running calls hold. Nothing of it changes meanwhile.
CREATE FUNCTION begin_spending_limit() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM credit_balances WHERE user_id = NEW.user_id FOR NO KEY UPDATE;
    NEW.period_start := date_trunc(NEW.period, now(), 'UTC');
    NEW.spent_usd := (
        SELECT coalesce(sum(cost_usd - coalesce(refunded_usd, 0)), 0)
        FROM usage LEFT JOIN holds ON holds.id = request_id AND holds.user_id = NEW.user_id AND refunded_usd > 0
        WHERE usage.user_id = NEW.user_id AND ended_at >= NEW.period_start
          AND (NEW.api_key_id IS NULL OR usage.api_key_id = NEW.api_key_id)
    );
    NEW.held_usd := (
        SELECT coalesce(sum(amount_usd), 0) FROM holds
        WHERE user_id = NEW.user_id AND state = 'held' AND (NEW.api_key_id IS NULL OR api_key_id = NEW.api_key_id)
    );
    RETURN NEW;
END
$$;
CREATE TRIGGER spending_limit_begin BEFORE INSERT ON spending_limits FOR EACH ROW EXECUTE FUNCTION begin_spending_limit();

-- What a user is told about money. `notice_key` says what it is about, so that nobody is told the same thing twice.
CREATE TABLE billing_notices (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL,
    notice_key text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz,
    UNIQUE (user_id, notice_key)
);

CREATE INDEX billing_notices_user ON billing_notices (user_id, created_at);

-- Who a user is to Stripe, and when to top off. The row is there before Stripe is asked; `customer_number` counts the
-- customers that were made, and is a part of the idempotency key that makes the next one.
CREATE TABLE billing_customers (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    stripe_customer_id text UNIQUE,
    customer_number integer NOT NULL DEFAULT 0,
    top_off_enabled boolean NOT NULL DEFAULT false,
    top_off_threshold_usd numeric(18, 6) CHECK (top_off_threshold_usd > 0),
    top_off_amount_usd numeric(18, 6) CHECK (top_off_amount_usd > 0),
    top_off_failures integer NOT NULL DEFAULT 0,
    next_top_off_at timestamptz NOT NULL DEFAULT '-infinity',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT top_off_enabled OR (top_off_threshold_usd IS NOT NULL AND top_off_amount_usd IS NOT NULL))
);

CREATE INDEX billing_customers_top_off ON billing_customers (next_top_off_at) WHERE top_off_enabled;

-- Our own order, made before Stripe is asked: what an event says is compared with it. Credits are booked when it becomes
-- `paid`, and taken back with what was refunded or disputed, in proportion. Cents of `currency`.
CREATE TABLE purchases (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('checkout', 'top_off')),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'failed', 'expired')),
    currency text NOT NULL DEFAULT 'usd',
    gross_cents bigint NOT NULL CHECK (gross_cents > 0),
    fee_cents bigint NOT NULL CHECK (fee_cents >= 0),
    net_cents bigint NOT NULL CHECK (net_cents > 0 AND net_cents + fee_cents = gross_cents),
    total_cents bigint, -- what was paid, tax included
    stripe_customer_id text,
    stripe_session_id text UNIQUE,
    stripe_invoice_id text UNIQUE,
    stripe_payment_intent_id text UNIQUE,
    stripe_charge_id text UNIQUE,
    refunded_cents bigint NOT NULL DEFAULT 0,
    disputed_cents bigint NOT NULL DEFAULT 0,
    taken_back_usd numeric(18, 6) NOT NULL DEFAULT 0,
    bookings integer NOT NULL DEFAULT 0, -- numbers the ledger's rows for this purchase
    failure text,
    refusals text[] NOT NULL DEFAULT '{}', -- what of Stripe contradicted it: each is told once
    leased_until timestamptz NOT NULL DEFAULT '-infinity', -- a top-off that somebody is carrying out
    created_at timestamptz NOT NULL DEFAULT now(),
    paid_at timestamptz,
    ended_at timestamptz
);

CREATE INDEX purchases_user ON purchases (user_id, created_at);
CREATE INDEX purchases_open ON purchases (created_at) WHERE state = 'open';
CREATE UNIQUE INDEX purchases_one_top_off ON purchases (user_id) WHERE kind = 'top_off' AND state = 'open';

-- Sessions in which a user leaves a card and pays nothing.
CREATE TABLE setup_sessions (
    stripe_session_id text PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz -- the card was left, and is the default since, or was refused
);

CREATE INDEX setup_sessions_user ON setup_sessions (user_id);

-- Stripe's events as they came, stored before they are answered. `refused`: it contradicts our own order, and somebody
-- has to look. `payload` may hold addresses of people: it is dropped some time after the event has ended.
CREATE TABLE stripe_events (
    id text PRIMARY KEY,
    type text NOT NULL,
    payload bytea, -- JSON, exactly as it came: jsonb refuses some of what is allowed there
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'ignored', 'refused', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    error text NOT NULL DEFAULT '',
    received_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);

CREATE INDEX stripe_events_due ON stripe_events (next_attempt_at) WHERE state = 'pending';
CREATE INDEX stripe_events_ended ON stripe_events (ended_at) WHERE payload IS NOT NULL;

-- What a reconciliation found: the figures that its metrics are read from.
CREATE TABLE reconciliations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    figures jsonb NOT NULL
);

-- Settings that are changed while servers run, as JSON. What has no row here has a default in the code.
CREATE TABLE configuration (
    key text PRIMARY KEY CHECK (key ~ '^[a-z][a-z0-9_]{0,99}$'),
    value jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['spending_limits', 'billing_notices', 'billing_customers', 'purchases', 'setup_sessions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_request USING (user_id = app_user_id()) WITH CHECK (user_id = app_user_id())', name || '_own', name);
        EXECUTE format('CREATE POLICY %I ON %I TO cloche_operator USING (true) WITH CHECK (true)', name || '_operator', name);
    END LOOP;
END
$$;

-- A request may hold money and read what is its user's. Whatever books, buys or sets a limit is the operator's.
GRANT UPDATE (held_free_usd) ON credit_balances TO cloche_request;
GRANT UPDATE (held_free_usd) ON credit_balances TO cloche_operator;
GRANT INSERT (free_usd, free_lot, api_key_id) ON holds TO cloche_request;
GRANT SELECT, UPDATE (held_usd) ON spending_limits TO cloche_request;
GRANT SELECT, UPDATE (read_at) ON billing_notices TO cloche_request;
GRANT SELECT ON billing_customers, purchases, setup_sessions, configuration TO cloche_request;
GRANT SELECT, INSERT, UPDATE, DELETE ON spending_limits, billing_notices, billing_customers, purchases, setup_sessions,
    stripe_events, reconciliations, configuration TO cloche_operator;
