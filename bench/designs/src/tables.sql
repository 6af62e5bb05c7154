-- The tables of the two designs; created at the start.
BEGIN;
-- IF NOT EXISTS does not protect against processes that create the tables at the same time.
SELECT pg_advisory_xact_lock(7305808869232407918);
CREATE TABLE IF NOT EXISTS design_stock (
    design TEXT     PRIMARY KEY,
    total  BIGINT   NOT NULL,
    sold   BIGINT   NOT NULL,
    -- How long an unpaid order keeps its ticket.
    hold   INTERVAL NOT NULL,
    CHECK (sold >= 0 AND sold <= total)
);
CREATE TABLE IF NOT EXISTS design_orders (
    order_id   TEXT        PRIMARY KEY,
    design     TEXT        NOT NULL,
    buyer      TEXT,
    -- HELD (has its ticket), UNPAID (has none yet), PAID, RELEASED or REFUND_DUE.
    state      TEXT        NOT NULL,
    -- Only of those that were HELD.
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS design_orders_due ON design_orders (design, expires_at) WHERE state = 'HELD';
COMMIT;
