-- Orders as deliveries told them, one row for each order of each epoch of a sale (src/orders.rs has the rules).
CREATE TABLE orders (
    order_id      TEXT    NOT NULL,
    sale          TEXT    NOT NULL,
    epoch         TEXT    NOT NULL,
    -- The log entry of the last event that was applied; older and equal ones are ignored.
    seq           INTEGER NOT NULL,
    buyer         TEXT,
    quantity      INTEGER NOT NULL,
    -- HELD, PAID or RELEASED.
    state         TEXT    NOT NULL,
    -- Times are in ms since 1970.
    expires_at_ms INTEGER,
    -- Why it was released: expired or cancelled.
    reason        TEXT,
    -- The payment that paid it.
    payment       TEXT,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (order_id, sale, epoch)
) WITHOUT ROWID;

CREATE INDEX orders_of_buyer ON orders (buyer, created_at_ms) WHERE buyer IS NOT NULL;

-- Payments and cancellations (src/settlements.rs has the states).
CREATE TABLE settlements (
    id              TEXT    NOT NULL PRIMARY KEY,
    order_id        TEXT    NOT NULL,
    sale            TEXT    NOT NULL,
    quantity        INTEGER NOT NULL,
    state           TEXT    NOT NULL,
    -- Why the money goes back.
    reason          TEXT,
    idempotency_key TEXT,
    attempts        INTEGER NOT NULL,
    -- Whoever works on it, until the time after which anybody may.
    lease           TEXT,
    due_at_ms       INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    updated_at_ms   INTEGER NOT NULL
);

-- At most one attempt to settle an order can be under way or have succeeded.
CREATE UNIQUE INDEX settlement_of_order ON settlements (order_id, sale)
    WHERE state IN ('pending', 'charged', 'paid', 'cancelling', 'cancelled');
CREATE UNIQUE INDEX settlement_of_key ON settlements (order_id, sale, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX settlements_of_order ON settlements (order_id, sale, created_at_ms);
CREATE INDEX settlements_due ON settlements (due_at_ms)
    WHERE state IN ('pending', 'charged', 'refund_due', 'cancelling');
