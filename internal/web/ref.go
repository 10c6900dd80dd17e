package web

import "crypto/rand"

// refAlphabet is Crockford's base 32: no I, L, O and U, so that a number can be
// read aloud and typed again. Its 32 letters divide a byte evenly.
const refAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newRef returns a fresh reference number such as 7K2M-44QX: 40 random bits. It
// finds an event; it opens nothing.
func newRef() string {
	var b [8]byte
	rand.Read(b[:])
	out := make([]byte, 0, 9)
	for i, c := range b {
		if i == 4 {
			out = append(out, '-')
		}
		out = append(out, refAlphabet[c&31])
	}
	return string(out)
}
