-- +goose Up
-- What the whole protocol needs: pushed requests, devices, identities of other
-- issuers, dynamic registration and tokens that are bound to a key.

ALTER TABLE users ADD COLUMN email_key TEXT NOT NULL DEFAULT ''; -- the address with A-Z in lower case
UPDATE users SET email_key = lower(email);
CREATE INDEX users_email ON users (email_key, id) WHERE email_key <> '';

ALTER TABLE sessions ADD COLUMN sid TEXT NOT NULL DEFAULT ''; -- the name of the session that clients may know
UPDATE sessions SET sid = lower(hex(randomblob(16)));

ALTER TABLE clients ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0; -- 0: never; else so long after last_used_at
ALTER TABLE clients ADD COLUMN registration_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE clients ADD COLUMN metadata BLOB;
ALTER TABLE clients ADD COLUMN post_logout_redirect_uris TEXT NOT NULL DEFAULT '[]';
ALTER TABLE clients ADD COLUMN backchannel_logout_uri TEXT NOT NULL DEFAULT '';
CREATE INDEX clients_dynamic ON clients (expires_at, source) WHERE source = 'dcr';

ALTER TABLE grants ADD COLUMN kind TEXT NOT NULL DEFAULT 'authorization_code'; -- how it began
ALTER TABLE grants ADD COLUMN jkt TEXT NOT NULL DEFAULT ''; -- of the DPoP key
ALTER TABLE grants ADD COLUMN instance_jkt TEXT NOT NULL DEFAULT ''; -- of the attested instance
ALTER TABLE grants ADD COLUMN cert_thumbprint TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN details TEXT NOT NULL DEFAULT ''; -- authorization_details, as JSON
ALTER TABLE grants ADD COLUMN sid TEXT NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN actor TEXT NOT NULL DEFAULT ''; -- the act claim, as JSON
CREATE INDEX grants_session ON grants (sid, id) WHERE sid <> '';
CREATE INDEX grants_alone ON grants (user_id, ended_at) WHERE user_id IS NULL AND ended_at IS NOT NULL;

ALTER TABLE codes ADD COLUMN jkt TEXT NOT NULL DEFAULT ''; -- the key demanded at redemption

-- The client of a pushed request or of a device needs no row: nobody has agreed
-- to it yet.
CREATE TABLE pushed_requests (
    hash       BLOB PRIMARY KEY,
    client_id  TEXT NOT NULL,
    request    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER -- when a person answered it
) WITHOUT ROWID;
CREATE INDEX pushed_requests_expiry ON pushed_requests (expires_at);
CREATE INDEX pushed_requests_live ON pushed_requests (expires_at, used_at) WHERE used_at IS NULL;

CREATE TABLE device_codes (
    hash            BLOB PRIMARY KEY,
    user_code       BLOB NOT NULL UNIQUE,
    client_id       TEXT NOT NULL,
    resource        TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    details         TEXT NOT NULL,
    auth_methods    TEXT NOT NULL,
    auth_method     TEXT NOT NULL,
    key_thumbprint  TEXT NOT NULL,
    jkt             TEXT NOT NULL,
    instance_jkt    TEXT NOT NULL,
    cert_thumbprint TEXT NOT NULL,
    security_digest TEXT NOT NULL,
    version         INTEGER NOT NULL,
    ip              TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    next_poll_at    INTEGER NOT NULL,
    poll_interval   INTEGER NOT NULL, -- microseconds
    too_fast        INTEGER NOT NULL, -- whether the last poll came before its time
    state           TEXT NOT NULL, -- pending, approved, denied, used
    grant_id        TEXT NOT NULL -- '' before a yes
) WITHOUT ROWID;
CREATE INDEX device_codes_expiry ON device_codes (expires_at);
CREATE INDEX device_codes_live ON device_codes (expires_at, state) WHERE state IN ('pending', 'approved');

-- Who an account is elsewhere. The row lives as long as the account.
CREATE TABLE identities (
    issuer       TEXT NOT NULL,
    tenant       TEXT NOT NULL, -- '' for issuers that have none
    subject      TEXT NOT NULL,
    user_id      TEXT NOT NULL REFERENCES users (id),
    email        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, tenant, subject)
) WITHOUT ROWID;
CREATE INDEX identities_user ON identities (user_id);
