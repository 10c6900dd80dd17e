-- +goose Up
-- Times are microseconds since 1970 in UTC. What has ended or was used keeps its
-- row until it is pruned. Hashes are SHA-256 of secrets that are nowhere kept.

CREATE TABLE users (
    id            TEXT COLLATE "C" PRIMARY KEY,
    name          TEXT COLLATE "C" NOT NULL,
    name_key      TEXT COLLATE "C" NOT NULL UNIQUE, -- the name in lower case
    email         TEXT COLLATE "C" NOT NULL,
    password_hash TEXT COLLATE "C" NOT NULL,
    disabled_at   BIGINT,
    created_at    BIGINT NOT NULL
);

CREATE TABLE sessions (
    hash         BYTEA PRIMARY KEY,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    auth_time    BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    acr          TEXT COLLATE "C" NOT NULL,
    amr          TEXT COLLATE "C" NOT NULL,
    ended_at     BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE clients (
    client_id     TEXT COLLATE "C" PRIMARY KEY,
    source        TEXT COLLATE "C" NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    secret_hash   TEXT COLLATE "C" NOT NULL,
    redirect_uris TEXT COLLATE "C" NOT NULL,
    grant_types   TEXT COLLATE "C" NOT NULL,
    auth_methods  TEXT COLLATE "C" NOT NULL,
    scope         TEXT COLLATE "C" NOT NULL,
    has_scope     BOOLEAN NOT NULL,
    jwks          BYTEA,
    jwks_uri      TEXT COLLATE "C" NOT NULL,
    version       BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL
);

CREATE TABLE documents (
    client_id       TEXT COLLATE "C" NOT NULL REFERENCES clients (client_id),
    version         BIGINT NOT NULL,
    body            BYTEA NOT NULL,
    digest          TEXT COLLATE "C" NOT NULL,
    security_digest TEXT COLLATE "C" NOT NULL,
    auth_methods    TEXT COLLATE "C" NOT NULL,
    fetched_at      BIGINT NOT NULL,
    PRIMARY KEY (client_id, version)
);

CREATE TABLE cache (
    key       TEXT COLLATE "C" PRIMARY KEY,
    client_id TEXT COLLATE "C" NOT NULL REFERENCES clients (client_id),
    entry     BYTEA NOT NULL,
    saved_at  BIGINT NOT NULL
);
CREATE INDEX cache_client ON cache (client_id);
CREATE INDEX cache_age ON cache (saved_at);

CREATE TABLE consents (
    user_id         TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    client_id       TEXT COLLATE "C" NOT NULL REFERENCES clients (client_id),
    resource        TEXT COLLATE "C" NOT NULL,
    security_digest TEXT COLLATE "C" NOT NULL,
    scopes          TEXT COLLATE "C" NOT NULL,
    given_at        BIGINT NOT NULL,
    ended_at        BIGINT,
    PRIMARY KEY (user_id, client_id, resource)
);
CREATE INDEX consents_client ON consents (client_id);
CREATE INDEX consents_ended ON consents (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE consent_nonces (
    hash       BYTEA PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL
);
CREATE INDEX consent_nonces_expiry ON consent_nonces (expires_at);

CREATE TABLE grants (
    id              TEXT COLLATE "C" PRIMARY KEY,
    user_id         TEXT COLLATE "C" REFERENCES users (id), -- NULL: the client acts for itself
    client_id       TEXT COLLATE "C" NOT NULL REFERENCES clients (client_id),
    resource        TEXT COLLATE "C" NOT NULL,
    scopes          TEXT COLLATE "C" NOT NULL,
    security_digest TEXT COLLATE "C" NOT NULL,
    version         BIGINT NOT NULL,
    auth_methods    TEXT COLLATE "C" NOT NULL,
    auth_method     TEXT COLLATE "C" NOT NULL,
    key_thumbprint  TEXT COLLATE "C" NOT NULL,
    auth_time       BIGINT NOT NULL,
    acr             TEXT COLLATE "C" NOT NULL,
    amr             TEXT COLLATE "C" NOT NULL,
    nonce           TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL, -- not before this can it be over; head_expires_at moves it on
    head            BIGINT NOT NULL, -- generation of the refresh token that was not spent; 0 without one
    head_hash       BYTEA,
    head_expires_at BIGINT NOT NULL,
    head_grace      BYTEA, -- the head, sealed under a key derived from the token before it
    held_at         BIGINT, -- while the client waits for a decision
    ended_at        BIGINT, -- also when the user was disabled or the client blocked
    end_reason      TEXT COLLATE "C" NOT NULL
);
CREATE INDEX grants_user ON grants (user_id, id);
CREATE INDEX grants_client ON grants (client_id, id);
CREATE INDEX grants_expiry ON grants (expires_at) WHERE ended_at IS NULL;
CREATE INDEX grants_ended ON grants (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE codes (
    hash         BYTEA PRIMARY KEY,
    grant_id     TEXT COLLATE "C" NOT NULL,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    challenge    TEXT COLLATE "C" NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT
);
CREATE INDEX codes_expiry ON codes (expires_at);

-- A token is spent when its generation is not the head of its grant: a rotation
-- writes one row here and changes one there. No foreign key, on purpose.
CREATE TABLE refresh_tokens (
    hash        BYTEA PRIMARY KEY,
    grant_id    TEXT COLLATE "C" NOT NULL,
    generation  BIGINT NOT NULL,
    scopes      TEXT COLLATE "C" NOT NULL, -- '': those of the grant
    expires_at  BIGINT NOT NULL,
    absolute_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE spent_ids (
    hash       BYTEA PRIMARY KEY, -- of issuer and identifier together
    expires_at BIGINT NOT NULL
);
CREATE INDEX spent_ids_expiry ON spent_ids (expires_at);

CREATE TABLE denied_tokens (
    jti        TEXT COLLATE "C" PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX denied_tokens_expiry ON denied_tokens (expires_at);

CREATE TABLE signing_keys (
    seq        BIGINT PRIMARY KEY,
    kid        TEXT COLLATE "C" NOT NULL UNIQUE,
    alg        TEXT COLLATE "C" NOT NULL,
    wrapped    BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    publish_at BIGINT NOT NULL,
    sign_at    BIGINT NOT NULL,
    retire_at  BIGINT NOT NULL
);

-- hash is the SHA-256 of the hash before it and this event as a line of JSON.
CREATE TABLE audit (
    seq       BIGINT PRIMARY KEY,
    at        BIGINT NOT NULL,
    type      TEXT COLLATE "C" NOT NULL,
    ref       TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    user_id   TEXT COLLATE "C" NOT NULL,
    grant_id  TEXT COLLATE "C" NOT NULL,
    resource  TEXT COLLATE "C" NOT NULL,
    ip        TEXT COLLATE "C" NOT NULL,
    rule      TEXT COLLATE "C" NOT NULL,
    code      TEXT COLLATE "C" NOT NULL,
    data      TEXT COLLATE "C" NOT NULL,
    hash      BYTEA NOT NULL
);
CREATE INDEX audit_type ON audit (type);
CREATE INDEX audit_ref ON audit (ref) WHERE ref <> '';

-- +goose StatementBegin
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END;
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
