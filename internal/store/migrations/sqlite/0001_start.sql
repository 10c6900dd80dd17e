-- +goose Up
-- Times are microseconds since 1970 in UTC. What has ended or was used keeps its
-- row until it is pruned. Hashes are SHA-256 of secrets that are nowhere kept.

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    name_key      TEXT NOT NULL UNIQUE, -- the name in lower case
    email         TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled_at   INTEGER,
    created_at    INTEGER NOT NULL
);

CREATE TABLE sessions (
    hash         BLOB PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id),
    auth_time    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    acr          TEXT NOT NULL,
    amr          TEXT NOT NULL,
    ended_at     INTEGER
) WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE clients (
    client_id     TEXT PRIMARY KEY,
    source        TEXT NOT NULL,
    state         TEXT NOT NULL,
    reason        TEXT NOT NULL,
    name          TEXT NOT NULL,
    secret_hash   TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,
    grant_types   TEXT NOT NULL,
    auth_methods  TEXT NOT NULL,
    scope         TEXT NOT NULL,
    has_scope     INTEGER NOT NULL,
    jwks          BLOB,
    jwks_uri      TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL
);

CREATE TABLE documents (
    client_id       TEXT NOT NULL REFERENCES clients (client_id),
    version         INTEGER NOT NULL,
    body            BLOB NOT NULL,
    digest          TEXT NOT NULL,
    security_digest TEXT NOT NULL,
    auth_methods    TEXT NOT NULL,
    fetched_at      INTEGER NOT NULL,
    PRIMARY KEY (client_id, version)
);

CREATE TABLE cache (
    key       TEXT PRIMARY KEY,
    client_id TEXT NOT NULL REFERENCES clients (client_id),
    entry     BLOB NOT NULL,
    saved_at  INTEGER NOT NULL
);
CREATE INDEX cache_client ON cache (client_id);
CREATE INDEX cache_age ON cache (saved_at);

CREATE TABLE consents (
    user_id         TEXT NOT NULL REFERENCES users (id),
    client_id       TEXT NOT NULL REFERENCES clients (client_id),
    resource        TEXT NOT NULL,
    security_digest TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    given_at        INTEGER NOT NULL,
    ended_at        INTEGER,
    PRIMARY KEY (user_id, client_id, resource)
);
CREATE INDEX consents_client ON consents (client_id);
CREATE INDEX consents_ended ON consents (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE consent_nonces (
    hash       BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX consent_nonces_expiry ON consent_nonces (expires_at);

CREATE TABLE grants (
    id              TEXT PRIMARY KEY,
    user_id         TEXT REFERENCES users (id), -- NULL: the client acts for itself
    client_id       TEXT NOT NULL REFERENCES clients (client_id),
    resource        TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    security_digest TEXT NOT NULL,
    version         INTEGER NOT NULL,
    auth_methods    TEXT NOT NULL,
    auth_method     TEXT NOT NULL,
    key_thumbprint  TEXT NOT NULL,
    auth_time       INTEGER NOT NULL,
    acr             TEXT NOT NULL,
    amr             TEXT NOT NULL,
    nonce           TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    last_used_at    INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL, -- not before this can it be over; head_expires_at moves it on
    head            INTEGER NOT NULL, -- generation of the refresh token that was not spent; 0 without one
    head_hash       BLOB,
    head_expires_at INTEGER NOT NULL,
    head_grace      BLOB, -- the head, sealed under a key derived from the token before it
    held_at         INTEGER, -- while the client waits for a decision
    ended_at        INTEGER, -- also when the user was disabled or the client blocked
    end_reason      TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX grants_user ON grants (user_id, id);
CREATE INDEX grants_client ON grants (client_id, id);
CREATE INDEX grants_expiry ON grants (expires_at) WHERE ended_at IS NULL;
CREATE INDEX grants_ended ON grants (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE codes (
    hash         BLOB PRIMARY KEY,
    grant_id     TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge    TEXT NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER
) WITHOUT ROWID;
CREATE INDEX codes_expiry ON codes (expires_at);

-- A token is spent when its generation is not the head of its grant: a rotation
-- writes one row here and changes one there. No foreign key, on purpose.
CREATE TABLE refresh_tokens (
    hash        BLOB PRIMARY KEY,
    grant_id    TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    scopes      TEXT NOT NULL, -- '': those of the grant
    expires_at  INTEGER NOT NULL,
    absolute_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE spent_ids (
    hash       BLOB PRIMARY KEY, -- of issuer and identifier together
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX spent_ids_expiry ON spent_ids (expires_at);

CREATE TABLE denied_tokens (
    jti        TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX denied_tokens_expiry ON denied_tokens (expires_at);

CREATE TABLE signing_keys (
    seq        INTEGER PRIMARY KEY,
    kid        TEXT NOT NULL UNIQUE,
    alg        TEXT NOT NULL,
    wrapped    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    publish_at INTEGER NOT NULL,
    sign_at    INTEGER NOT NULL,
    retire_at  INTEGER NOT NULL
);

-- hash is the SHA-256 of the hash before it and this event as a line of JSON.
CREATE TABLE audit (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    type      TEXT NOT NULL,
    ref       TEXT NOT NULL,
    client_id TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    grant_id  TEXT NOT NULL,
    resource  TEXT NOT NULL,
    ip        TEXT NOT NULL,
    rule      TEXT NOT NULL,
    code      TEXT NOT NULL,
    data      TEXT NOT NULL,
    hash      BLOB NOT NULL
);
CREATE INDEX audit_type ON audit (type);
CREATE INDEX audit_ref ON audit (ref) WHERE ref <> '';

-- +goose StatementBegin
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
-- +goose StatementEnd
