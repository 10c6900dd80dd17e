package cimd

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// digestOf returns the SHA-256 of b in base64url without padding.
func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// securityDigest covers what a person's consent rests on: redirect URIs,
// authentication methods, where the keys come from, grant types, scope and
// application type, all as declared. A new name, logo or key does not change it
// (CACHE-18), nor does the order of a list, nor what this server supports.
func (r *reading) securityDigest() string {
	d := r.doc
	keys := d.JWKSURI
	if d.JWKS != nil {
		keys = "inline"
	}
	scope := []string{}
	if d.HasScope {
		scope = append(scope, d.Scope)
	}
	b := make([]byte, 0, 512)
	for _, part := range [][]string{d.RedirectURIs, r.methods, {keys}, r.grants, scope, {d.ApplicationType}} {
		sorted := slices.Clone(part)
		slices.Sort(sorted)
		sorted = slices.Compact(sorted)
		// Counts and lengths go first, so that no two lists look alike.
		b = binary.AppendUvarint(b, uint64(len(sorted)))
		for _, s := range sorted {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	return digestOf(b)
}
