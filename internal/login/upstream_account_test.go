package login

import "testing"

func TestWhichAddressesAreAdmitted(t *testing.T) {
	domains := []string{"acme.example"}
	for email, want := range map[string]bool{
		"john@acme.example": true, "John.O'Neil+x@ACME.example": true,
		"@acme.example": false, "john@acme.example.evil.test": false, "john@sub.acme.example": false, "john@evil.test@acme.example": false,
		"jo hn@acme.example": false, "john\x00@acme.example": false, "john\n@acme.example": false, "jöhn@acme.example": false, "john\u202e@acme.example": false,
		"john@\u212acme.example": false, "": false, "acme.example": false,
	} {
		if admitted(email, domains) != want {
			t.Errorf("OIDC-05 %q: admitted %v", email, !want)
		}
	}
	if admitted("john@acme.example", nil) {
		t.Error("OIDC-05 an address is admitted where no domain is")
	}
}
