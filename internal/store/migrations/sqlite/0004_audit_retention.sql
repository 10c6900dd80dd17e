-- +goose Up
-- Where the kept audit begins: the number and the hash of the newest event that
-- was removed for its age. Only what it covers can be removed, and it only moves
-- on.
CREATE TABLE audit_checkpoint (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL
);

DROP TRIGGER audit_no_delete;

-- +goose StatementBegin
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
WHEN OLD.seq > COALESCE((SELECT seq FROM audit_checkpoint), 0)
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_checkpoint_moves_on BEFORE UPDATE ON audit_checkpoint
WHEN NEW.seq <= OLD.seq
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_checkpoint_stays BEFORE DELETE ON audit_checkpoint
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
-- +goose StatementEnd
