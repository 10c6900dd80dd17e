package jose

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/oauth"
)

const (
	maxProof = 8 << 10 // bytes of a proof; a key of RSA 4096 with its signature needs less than 3 KiB
	maxJTI   = 256     // bytes of a jti
)

// ProofRules say what a DPoP proof has to be about.
type ProofRules struct {
	Method      string        // of the request
	URL         string        // of the request as configured, never as the Host header has it
	Now         time.Time     // the time of the check
	Past        time.Duration // how old a proof may be
	Future      time.Duration // how far the sender's clock may be ahead
	AccessToken string        // that comes with it; "" asks for no ath
}

// Proof is a DPoP proof that was checked.
type Proof struct {
	JKT    string    // SHA-256 thumbprint of the key (RFC 7638): what tokens are bound to
	Alg    string    // one of Algorithms
	JTI    string    // 1 to 256 bytes, any characters
	Nonce  string    // "" if absent
	Issued time.Time // iat
	Claims []byte    // the payload, a JSON object, strictly read
}

// ParseProof checks a DPoP proof as RFC 9449 section 4.3 has it: type, a public
// key and an algorithm of ours in the header, the signature by that key, htm,
// htu without query and fragment, the window of iat, and ath when an access token
// comes with it. It does not know nonces and has no memory: the caller compares
// Nonce and refuses a second use of (JKT, JTI) for as long as the window is open.
// The error is in words for the sender and quotes nothing of the proof but a
// member name that stands twice.
func ParseProof(raw string, r ProofRules) (*Proof, error) {
	m, err := Parse(raw, maxProof)
	if err != nil {
		return nil, err
	}
	if m.Header.Typ != oauth.TypDPoP {
		return nil, errors.New("typ is not " + oauth.TypDPoP)
	}
	head, err := decode(raw[:strings.IndexByte(raw, '.')])
	if err != nil {
		return nil, err
	}
	names, err := Object(head)
	if err != nil {
		return nil, err
	}
	if names["jwk"] == nil {
		return nil, errors.New("the header has no jwk")
	}
	key, err := ParseJWK(names["jwk"])
	if err != nil {
		return nil, fmt.Errorf("jwk: %w", err)
	}
	p := &Proof{JKT: key.Thumbprint(), Alg: m.Header.Alg, Claims: m.Claims}
	if err := p.read(r); err != nil {
		return nil, err
	}
	if err := m.Verify(key); err != nil { // the dearest check comes last
		return nil, err
	}
	return p, nil
}

// ParseJWK reads one public key, under the same demands as a key of a set.
// Private or symmetric key material is ErrPrivateKey.
func ParseJWK(raw []byte) (Key, error) {
	j, err := readJWK(raw)
	if j.private {
		return Key{}, ErrPrivateKey
	}
	if err != nil {
		return Key{}, err
	}
	return j.key()
}

// PublicKey returns the key of a certificate, to be looked for in a set by its
// thumbprint. A key of a kind that no set here can hold is an error.
func PublicKey(pub any) (Key, error) {
	if ec, ok := pub.(*ecdsa.PublicKey); ok && ec.Curve != elliptic.P256() {
		return Key{}, errors.New("no supported algorithm")
	}
	return newKey("", "", pub)
}

// Has reports whether one of the keys is this one, under any name.
func (s Set) Has(k Key) bool {
	return slices.ContainsFunc(s.Keys, func(o Key) bool { return o.thumb != "" && o.thumb == k.thumb })
}

// read holds the claims against the rules.
func (p *Proof) read(r ProofRules) error {
	list, err := Object(p.Claims)
	if err != nil {
		return err
	}
	var htm, htu, ath string
	for name, into := range map[string]*string{"htm": &htm, "htu": &htu, "jti": &p.JTI, "nonce": &p.Nonce, "ath": &ath} {
		if v, ok := list[name]; ok {
			if *into, err = text(v); err != nil {
				return fmt.Errorf("%s is not a string", name)
			}
		}
	}
	if p.Issued, err = numericDate(list["iat"]); err != nil {
		return fmt.Errorf("iat %w", err)
	}
	if p.JTI == "" || len(p.JTI) > maxJTI {
		return fmt.Errorf("jti is missing or longer than %d bytes", maxJTI)
	}
	if htm != r.Method {
		return errors.New("htm is not the method of the request")
	}
	want, err := target(r.URL)
	if err != nil {
		return fmt.Errorf("the configured URL: %w", err)
	}
	if got, err := target(htu); err != nil || got != want {
		return errors.New("htu is not the URL of the request")
	}
	switch {
	case p.Issued.Before(r.Now.Add(-r.Past)):
		return errors.New("iat is too old")
	case p.Issued.After(r.Now.Add(r.Future)):
		return errors.New("iat is in the future; compare your clock with the Date header")
	}
	if r.AccessToken != "" {
		sum := sha256.Sum256([]byte(r.AccessToken))
		if subtle.ConstantTimeCompare([]byte(ath), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) != 1 {
			return errors.New("ath is not the hash of the access token")
		}
	}
	return nil
}

// numericDate reads a NumericDate (RFC 7519 section 2), which may have a fraction.
func numericDate(raw []byte) (time.Time, error) {
	if raw == nil {
		return time.Time{}, errors.New("is missing")
	}
	var n *float64
	if json.Unmarshal(raw, &n) != nil || n == nil {
		return time.Time{}, errors.New("is not a number")
	}
	if math.Abs(*n) > 1<<40 {
		return time.Time{}, errors.New("is not a time")
	}
	whole, fraction := math.Modf(*n)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// target is a URL without query and fragment in one spelling: scheme and host in
// lower case, no default port, a path, and percent-encoding in its one form
// (RFC 9449 section 4.3, RFC 3986 section 6.2).
func target(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return "", errors.New("not an absolute URL")
	}
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if port != "" && (scheme != "https" || port != "443") && (scheme != "http" || port != "80") {
		host = net.JoinHostPort(host, port)
	} else if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return scheme + "://" + host + onePercent(path), nil
}

// onePercent decodes the percent-encoding of letters, digits and -._~, which
// changes no URL, and writes the rest with capitals.
func onePercent(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		pair := strings.ToUpper(path[i+1 : i+3])
		c := byte(strings.IndexByte(hex, pair[0])<<4 | strings.IndexByte(hex, pair[1]))
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + pair)
		}
		i += 2
	}
	return b.String()
}
