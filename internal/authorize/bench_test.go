package authorize

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/bonafide-id/bonafide/internal/web"
)

// BenchmarkToSignIn is the way of a stranger whose client's document is in the
// cache: up to the redirect to the sign-in page, through the edge.
func BenchmarkToSignIn(b *testing.B) {
	p := open(b)
	c := &http.Cookie{Name: "__Host-bonafide_browser", Value: challenge}
	target := issuer + "/authorize?" + asks(goodID).Encode()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.AddCookie(c)
		w := httptest.NewRecorder()
		p.mux.ServeHTTP(w, r)
		if w.Code != http.StatusSeeOther {
			b.Fatal(w.Code)
		}
	}
}

// BenchmarkBare is the floor to compare with: the same request to a handler that
// redirects at once.
func BenchmarkBare(b *testing.B) {
	p := open(b)
	h := p.edge.Entry(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := web.ParseRequest(r); err != nil {
			return err
		}
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return nil
	})
	target := issuer + "/authorize?" + asks(goodID).Encode()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if w.Code != http.StatusSeeOther {
			b.Fatal(w.Code)
		}
	}
}
