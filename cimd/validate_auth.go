package cimd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// MaxKeys is the greatest number of keys in an inline key set (JK-07).
const MaxKeys = 16

// Members of client metadata that more than one check reads.
const (
	memberMethod     = "token_endpoint_auth_method"
	memberMethods    = "token_endpoint_auth_methods_supported"
	memberSigningAlg = "token_endpoint_auth_signing_alg"
	memberStatement  = "software_statement"
)

// checkSecrets refuses what must never stand in a public document, whatever its
// value (DOC-03).
func (r *reading) checkSecrets() { r.secretsIn(r.root, "") }

func (r *reading) secretsIn(obj *value, prefix string) {
	for _, name := range []string{"client_secret", "client_secret_expires_at", "registration_access_token"} {
		if obj.get(name) != nil {
			r.fail("DOC-03", prefix+name, "must not stand in a public document, not even empty")
		}
	}
	if v := obj.get(memberMethod); v != nil && v.kind == kindString && sharedSecret(v.text) {
		r.fail("DOC-04", prefix+memberMethod, "needs a shared secret, which a public document cannot have")
	}
	if v := obj.get(memberMethods); v != nil {
		for i, item := range v.items {
			if item.kind == kindString && sharedSecret(item.text) {
				r.fail("DOC-04", at(prefix+memberMethods, i), "needs a shared secret, which a public document cannot have")
			}
		}
	}
	if v := obj.get("jwks"); v != nil {
		r.privateKeysIn(v, prefix+"jwks")
	}
}

// sharedSecret reports whether an authentication method rests on a secret that
// client and server share. The prefix covers the three registered methods in any
// case.
func sharedSecret(method string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(method)), "client_secret")
}

// privateMembers are the members of a JWK that hold private or symmetric key
// material (RFC 7518 section 6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// privateKeysIn refuses private and symmetric keys (DOC-05, JK-01).
func (r *reading) privateKeysIn(jwks *value, where string) {
	keys := jwks.get("keys")
	if keys == nil {
		return
	}
	for i := range keys.items {
		key, name := &keys.items[i], at(where+".keys", i)
		if slices.ContainsFunc(privateMembers, func(m string) bool { return key.get(m) != nil }) {
			r.fail("DOC-05", name, "holds private or symmetric key material: publish the public key only, and replace this key")
		} else if kty := key.get("kty"); kty != nil && kty.text == "oct" {
			r.fail("DOC-05", name, "is a symmetric key")
		}
	}
}

// checkStatement applies the bans to an embedded software_statement (DOC-06).
// Otherwise a statement is ignored: no issuer of statements is trusted (DOC-07).
func (r *reading) checkStatement() {
	v := r.optional(memberStatement)
	if v == nil {
		return
	}
	parts := strings.Split(v.text, ".")
	if v.kind != kindString || len(parts) != 3 {
		r.warn("DOC-07", memberStatement, "is not a signed JWT and was ignored")
		return
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		r.warn("DOC-07", memberStatement, "is not a signed JWT and was ignored")
		return
	}
	claims, err := parseObject(string(payload))
	if err != nil {
		r.warn("DOC-07", memberStatement, "has claims that are not one valid JSON object and was ignored")
		return
	}
	if r.prof.statementBound {
		r.secretsIn(claims, memberStatement+".")
	}
	r.warn("DOC-07", memberStatement, "was ignored: this server trusts no issuer of software statements")
}

// checkKeys reads jwks and jwks_uri (DOC-05, DOC-23, DOC-26, DOC-29).
func (r *reading) checkKeys() {
	inline := r.optional("jwks")
	uri, hasURI := r.text("DOC-26", "jwks_uri")
	r.keyless = true
	if inline != nil && r.root.get("jwks_uri") != nil && r.root.get("jwks_uri").kind != kindNull {
		r.fail("DOC-23", "jwks", "stands beside jwks_uri; publish one of them")
	}
	if hasURI {
		r.keyless = false
		switch f := r.checkURI(uri); {
		case f != nil:
			r.fail("DOC-26", "jwks_uri", f.text)
		case strings.Contains(uri, "#"):
			r.fail("DOC-26", "jwks_uri", "has a fragment (a # sign)")
		case uri == r.id.raw:
			r.fail("DOC-26", "jwks_uri", "is the client_id itself")
		default:
			r.doc.JWKSURI = uri
		}
	}
	if inline != nil {
		r.inlineKeys(inline)
	}
}

func (r *reading) inlineKeys(v *value) {
	keys := v.get("keys")
	if v.kind != kindObject || keys == nil || keys.kind != kindArray {
		r.fail("DOC-29", "jwks", `is not an object with an array "keys"`)
		return
	}
	// Bytes of the body, never a second serialization.
	raw := bytes.Clone(r.doc.Raw[v.start:v.end])
	set, err := jose.ParseSet(raw, jose.SetLimits{MaxKeys: MaxKeys})
	switch {
	case errors.Is(err, jose.ErrPrivateKey):
		// privateKeysIn has said so already, by name; this is the second lock.
		if !r.found("DOC-05") {
			r.fail("DOC-05", "jwks", "holds private or symmetric key material")
		}
		return
	case err != nil:
		r.fail("DOC-29", "jwks", "is not a usable key set: public keys only, at most 16")
		return
	}
	for _, d := range set.Dropped {
		r.warn("DOC-29", at("jwks.keys", d.Index), "was left out: "+d.Reason)
	}
	if len(set.Keys) == 0 {
		r.warn("DOC-29", "jwks", "holds no usable key")
	}
	r.keyless = len(set.Keys) == 0
	r.warn("DOC-29", "jwks", "stands inside the document; a jwks_uri lets keys change without touching it")
	r.doc.JWKS = raw
}

// checkSigningAlg reads token_endpoint_auth_signing_alg (DOC-30). Ed25519 and
// EdDSA are two names of one algorithm (RFC 9864).
func (r *reading) checkSigningAlg() {
	alg, ok := r.text("DOC-30", memberSigningAlg)
	alg = jose.Canonical(alg)
	switch {
	case !ok:
	case !token(alg):
		r.fail("DOC-30", memberSigningAlg, "is no algorithm name")
	case strings.EqualFold(alg, "none") || strings.HasPrefix(strings.ToUpper(alg), "HS"):
		r.fail("DOC-30", memberSigningAlg, "must name a signature with a private key; none and HMAC prove nothing")
	case !slices.Contains(r.sup.SigningAlgs, alg):
		r.warn("DOC-30", memberSigningAlg, "is not supported here, so private_key_jwt cannot be used; supported: "+strings.Join(r.sup.SigningAlgs, ", "))
		r.noSigAlg = true
	default:
		r.doc.SigningAlg = alg
	}
}

// checkAuthMethods finds the methods with which the client may authenticate
// (DOC-13 to DOC-19). A malformed value is an error and never means none; a
// well-formed one that is not supported is left out, and if nothing remains the
// document is valid and its AuthMethods are empty (DOC-17).
func (r *reading) checkAuthMethods() {
	single, hasSingle, ok1 := r.singleMethod()
	list, hasList, ok2 := r.methodList()
	if !ok1 || !ok2 {
		return
	}
	switch {
	case hasSingle && (!hasList || !r.prof.methodList):
		r.methods = []string{single}
	case hasSingle && !slices.Contains(list, single):
		r.fail("DOC-15", memberMethod, "is not in "+memberMethods)
		return
	case hasList:
		r.methods = list
	default:
		r.methods = []string{r.prof.defaultMethod}
	}
	lostKeys := false
	for _, m := range r.methods {
		where := memberMethod
		if hasList && (!hasSingle || r.prof.methodList) {
			where = locate(memberMethods, r.root.get(memberMethods), m)
		}
		switch {
		case (m == oauth.MethodPrivateKeyJWT || m == oauth.MethodSelfSignedTLS) && r.keyless:
			lostKeys = true
			r.warn("DOC-19", where, "cannot be used for want of keys: publish jwks_uri or jwks")
		case !slices.Contains(r.sup.AuthMethods, m):
			r.warn("DOC-16", where, "is not supported here and was left out; supported: "+strings.Join(r.sup.AuthMethods, ", "))
		case m == oauth.MethodPrivateKeyJWT && r.noSigAlg:
			// The warning stands at token_endpoint_auth_signing_alg.
		default:
			r.doc.AuthMethods = append(r.doc.AuthMethods, m)
		}
	}
	slices.SortStableFunc(r.doc.AuthMethods, func(a, b string) int { return weakness(a) - weakness(b) })
	if len(r.doc.AuthMethods) > 0 {
		return
	}
	if lostKeys {
		r.fail("DOC-19", memberMethod, "needs keys: publish jwks_uri or jwks")
		return
	}
	r.warn("DOC-17", memberMethod, "leaves no method that is supported here; authorization requests end with unauthorized_client")
}

// weakness orders the methods that a document may name, the strongest first.
func weakness(method string) int {
	switch method {
	case oauth.MethodPrivateKeyJWT:
		return 0
	case oauth.MethodNone:
		return 2
	}
	return 1
}

// singleMethod reads token_endpoint_auth_method. ok is false if it is malformed.
func (r *reading) singleMethod() (method string, present, ok bool) {
	v := r.root.get(memberMethod)
	switch {
	case v == nil:
		return "", false, true
	case v.kind != kindString:
		r.fail("DOC-13", memberMethod, "is "+v.kind.String()+", not a string")
	case !methodName(v.text):
		r.fail("DOC-13", memberMethod, "is no method name: lower-case letters, without spaces")
	default:
		return strings.Clone(v.text), true, !sharedSecret(v.text)
	}
	return "", true, false
}

// methodList reads token_endpoint_auth_methods_supported. ok is false if it is
// malformed.
func (r *reading) methodList() (list []string, present, ok bool) {
	v := r.root.get(memberMethods)
	if v == nil {
		return nil, false, true
	}
	list, ok = r.list("DOC-14", memberMethods, v)
	if !ok {
		return nil, true, false
	}
	if len(list) == 0 {
		r.fail("DOC-14", memberMethods, "is an empty list")
		return nil, true, false
	}
	for _, m := range list {
		if !methodName(m) {
			r.fail("DOC-14", memberMethods, "has a value that is no method name: lower-case letters, without spaces")
			return nil, true, false
		}
		ok = ok && !sharedSecret(m)
	}
	return list, true, ok
}

// methodName reports whether s can be a registered authentication method, which
// are all in lower case, or an absolute URI in its place (RFC 7591 section 2).
func methodName(s string) bool {
	return token(s) && (s == strings.ToLower(s) || strings.Contains(s, ":"))
}

// token reports whether s is a short word of visible ASCII.
func token(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
