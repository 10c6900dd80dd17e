package clientauth

// Bare reports whether a request shows nothing that could prove who the client
// is, and at most names it.
func (a *Authenticator) Bare(q Request) bool {
	if q.Basic || q.Secret != "" || q.Assertion != "" || q.AssertionType != "" ||
		a.cfg.Attestation != nil && len(q.Attestations)+len(q.AttestationProofs) > 0 {
		return false
	}
	cert, err := a.certificate(&q)
	return cert == nil && err == nil
}
