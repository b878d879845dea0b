-- Which log it is: one row, made with the log.
CREATE TABLE herald.log (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    history uuid NOT NULL,
    log_id uuid NOT NULL,
    salt bigint NOT NULL,
    is_seeding boolean NOT NULL,
    -- Set with the first batch: a log without batches is then one that has lost them.
    has_begun boolean NOT NULL DEFAULT false
);

-- The batches. A position is inserted once, never changed, and in the end deleted from the front.
CREATE TABLE herald.batch (
    position bigint PRIMARY KEY CHECK (position > 0),
    batch_id uuid NOT NULL,
    -- The newest offset up to it, and its time in milliseconds: what goes by when it is forgotten.
    tail bigint NOT NULL,
    time_ms bigint NOT NULL,
    frame bytea NOT NULL
) WITH (
    -- Two to a page; beyond, a frame is kept in pieces beside the table.
    toast_tuple_target = 4080,
    -- Like a queue: what was deleted is all at one end of the index, and in the way of whoever looks for the oldest.
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.01,
    toast.autovacuum_vacuum_threshold = 1000,
    toast.autovacuum_vacuum_scale_factor = 0.01
);

-- Never compressed: it would cost more time than it saves, on each way.
ALTER TABLE herald.batch ALTER COLUMN frame SET STORAGE EXTERNAL;
