-- +goose Up
-- How often something was ended, and with which of these times each connection
-- was, or all of a person or of a client: a page that was shown before is not
-- answered afterwards, whatever the clocks say that took part.
CREATE TABLE endings (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    n   INTEGER NOT NULL
);
INSERT INTO endings (one, n) VALUES (1, 0);

ALTER TABLE consents ADD COLUMN ending INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN ending INTEGER NOT NULL DEFAULT 0;
ALTER TABLE clients ADD COLUMN ending INTEGER NOT NULL DEFAULT 0;
