package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func b64JSON(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64(raw)
}

type m = map[string]any

// key signs what a good client, or a bad one, would sign. It is written by hand:
// a library would refuse half of the attacks.
type key struct {
	alg  string
	kid  string
	ec   *ecdsa.PrivateKey
	rsa  *rsa.PrivateKey
	ed   ed25519.PrivateKey
	less bool // no kid in the header
}

var keyCount int

func newKey(alg string) *key {
	keyCount++
	k := &key{alg: alg, kid: fmt.Sprintf("k%d", keyCount)}
	var err error
	switch alg {
	case "ES256":
		k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256", "PS256":
		k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EdDSA":
		_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	default:
		panic("no such algorithm: " + alg)
	}
	if err != nil {
		panic(err)
	}
	return k
}

// jwk returns the public key, with members changed.
func (k *key) jwk(change m) m {
	j := m{"kid": k.kid, "alg": k.alg, "use": "sig"}
	switch {
	case k.ec != nil:
		raw, err := k.ec.PublicKey.Bytes()
		if err != nil {
			panic(err)
		}
		j["kty"], j["crv"], j["x"], j["y"] = "EC", "P-256", b64(raw[1:33]), b64(raw[33:])
	case k.rsa != nil:
		j["kty"], j["n"], j["e"] = "RSA", b64(k.rsa.N.Bytes()), b64(big.NewInt(int64(k.rsa.E)).Bytes())
	default:
		j["kty"], j["crv"], j["x"] = "OKP", "Ed25519", b64(k.ed.Public().(ed25519.PublicKey))
	}
	for name, v := range change {
		if j[name] = v; v == nil {
			delete(j, name)
		}
	}
	return j
}

// private returns the key with its private member.
func (k *key) private() m {
	raw, err := k.ec.Bytes()
	if err != nil {
		panic(err)
	}
	return k.jwk(m{"d": b64(raw)})
}

// thumbprint is RFC 7638.
func (k *key) thumbprint() string {
	j := k.jwk(nil)
	var text string
	switch j["kty"] {
	case "EC":
		text = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, j["x"], j["y"])
	case "RSA":
		text = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, j["e"], j["n"])
	default:
		text = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, j["x"])
	}
	sum := sha256.Sum256([]byte(text))
	return b64(sum[:])
}

func (k *key) signature(input string) []byte {
	sum := sha256.Sum256([]byte(input))
	var sig []byte
	var err error
	switch {
	case k.ec != nil:
		r, s, e := ecdsa.Sign(rand.Reader, k.ec, sum[:])
		if e != nil {
			panic(e)
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
	case k.alg == "PS256":
		sig, err = rsa.SignPSS(rand.Reader, k.rsa, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case k.rsa != nil:
		sig, err = rsa.SignPKCS1v15(rand.Reader, k.rsa, crypto.SHA256, sum[:])
	default:
		sig = ed25519.Sign(k.ed, []byte(input))
	}
	if err != nil {
		panic(err)
	}
	return sig
}

// sign signs claims below a header with alg and kid and what head changes.
func (k *key) sign(head, claims m) string {
	h := m{"alg": k.alg}
	if !k.less {
		h["kid"] = k.kid
	}
	for name, v := range head {
		if h[name] = v; v == nil {
			delete(h, name)
		}
	}
	return k.signRaw(b64JSON(h), b64JSON(claims))
}

func (k *key) signRaw(head, payload string) string {
	input := head + "." + payload
	return input + "." + b64(k.signature(input))
}

func hmacked(claims m, secret []byte, head m) string {
	h := m{"alg": "HS256", "typ": "JWT"}
	maps.Copy(h, head)
	input := b64JSON(h) + "." + b64JSON(claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return b64(b)
}

// keyed is a client with keys, on a host of its own.
type keyed struct {
	s    *server
	host *host
	id   string
	keys []*key
}

// keyed makes a client that authenticates with private_key_jwt.
func (t *trial) keyed(name string, members m, algs ...string) *keyed {
	k := &keyed{s: t.s, host: t.w.host(name)}
	for _, alg := range algs {
		k.keys = append(k.keys, newKey(alg))
	}
	doc := m{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://" + name + "/jwks.json"}
	for n, v := range members {
		doc[n] = v
	}
	k.id = k.host.client("/c.json", doc)
	k.publish(k.keys...)
	return k
}

func (k *keyed) publish(keys ...*key) {
	list := []any{}
	for _, x := range keys {
		list = append(list, x.jwk(nil))
	}
	k.host.put("/jwks.json", jsonResponse(m{"keys": list}))
}

// claims of a good assertion, with members changed.
func (k *keyed) claims(change m) m {
	now := k.s.now().Unix()
	c := m{"iss": k.id, "sub": k.id, "aud": issuer, "jti": random(16), "iat": now, "exp": now + 60}
	for n, v := range change {
		if c[n] = v; v == nil {
			delete(c, n)
		}
	}
	return c
}

func (k *keyed) assert(change m) string { return k.keys[0].sign(nil, k.claims(change)) }

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// with are the changes to a form that present an assertion.
func with(assertion string, more ...string) []string {
	return append([]string{"client_assertion_type", assertionType, "client_assertion", assertion}, more...)
}

// codeOf lets a person agree to the client and returns the code.
func (k *keyed) codeOf(p *person) string { return p.codeFor(azOf(k.id)) }

// redeem sends a code with an assertion.
func (k *keyed) redeem(code, assertion string, more ...string) reply {
	return k.s.post("/token", codeForm(code, append(append([]string{"client_id", k.id, "redirect_uri", "https://" + k.host.name + "/cb"}, with(assertion)...), more...)...))
}

// auth presents an assertion where it does nothing else.
func (k *keyed) auth(assertion string) reply {
	return k.s.post("/revoke", values(with(assertion, "token", "unknown")...))
}

func compact(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func pemOf(k *key) []byte {
	der, err := x509.MarshalPKIXPublicKey(&k.rsa.PublicKey)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// claimOf returns a claim of a JWT, unverified.
func claimOf(token, name string) any {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil
	}
	var c m
	if json.Unmarshal(raw, &c) != nil {
		return nil
	}
	return c[name]
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return b64(sum[:])
}
