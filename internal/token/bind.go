package token

import (
	"context"

	"github.com/bonafide-id/bonafide/internal/planted"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// What a request says that does not hold the key it would need. It is the same
// for a missing and for another key.
const (
	hintKey         = "this belongs to a key of the client; the request needs a DPoP proof made with that key"
	hintInstance    = "this belongs to one instance of the client; the request needs an attestation for the key of that instance"
	hintCertificate = "this belongs to a certificate of the client; the request has to come over a connection made with it"
)

// bind checks that the request proves the keys that the code or the grant is
// bound to. It is asked before anything is used up and before a replay is judged:
// who holds a stolen code or refresh token and not the key can neither use it nor
// end the grant with it (DP-06).
//
// The refresh token of a public client belongs to its first key (RFC 9449 section
// 5, RFC 8705 section 4). A client that authenticates may come with a new key, for
// keys and certificates are renewed, but not without one: what began bound never
// becomes a bearer token.
func (h *Handler) bind(_ context.Context, is *issue) error { return is.holds(is.grant) }

// asItWas is a grant as it was when a refresh token of its family was made: what
// was made without a key belongs to none, whoever has shown one since.
func asItWas(g store.Grant, r store.Refresh) store.Grant {
	if r.Generation < r.KeySince {
		g.JKT = ""
	}
	if r.Generation < r.InstanceSince {
		g.InstanceJKT = ""
	}
	return g
}

// holds is bind for a grant.
func (is *issue) holds(g store.Grant) error {
	c := is.client
	public := c.Method == oauth.MethodNone
	held := func(bound, shown string) bool { return bound == "" || shown == bound || shown != "" && !public }
	switch {
	case is.code.JKT != "" && is.code.JKT != is.jkt:
		return invalidGrant("AUTHZ-28", hintKey, "the proof is not made with the key of dpop_jkt")
	case g.InstanceJKT != "" && g.InstanceJKT != c.InstanceJKT:
		return invalidGrant("ATT-08", hintInstance, "another instance of the client")
	case !held(g.JKT, is.jkt) && !planted.Weak("bound"):
		return invalidGrant("DPOP-02", hintKey, "no proof, or one with another key")
	case !held(g.CertThumbprint, c.CertThumbprint):
		return invalidGrant("DPOP-07", hintCertificate, "no certificate, or another one")
	}
	return nil
}

// ties returns the keys that the next refresh token belongs to and the grant does
// not yet: that of the proof with which a public client comes (RFC 9449 section 5),
// and that of the attested installation (ATT-08). A refresh token belongs to the
// key that was shown for it, also when the grant began without one.
func (is *issue) ties() (jkt, instance string) {
	if is.grant.JKT == "" && is.client.Method == oauth.MethodNone {
		jkt = is.jkt
	}
	if is.grant.InstanceJKT == "" {
		instance = is.client.InstanceJKT
	}
	return jkt, instance
}

// certificate is the thumbprint of the certificate that tokens are bound to, or "".
// Where only the policy demands that they be bound, the key of a proof is enough: a
// resource that does not see certificates could not use a token that has both.
func (is *issue) certificate() string {
	if c := is.client; is.jkt != "" && (c.Doc == nil || !c.Doc.MTLSBound) {
		return ""
	}
	return is.client.CertThumbprint
}

// tokenType is how the access token is presented. A token that is bound to a
// certificate is a bearer token in this respect (RFC 8705 section 3).
func tokenType(jkt string) string {
	if jkt != "" {
		return oauth.TokenDPoP
	}
	return oauth.TokenBearer
}
