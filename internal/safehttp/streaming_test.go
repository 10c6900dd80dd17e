package safehttp

import (
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestStreaming(t *testing.T) {
	t.Run("CLI-14 a body without a limit comes through, from a peer with a known certificate", func(t *testing.T) {
		const size = 3 << 20
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, size))
		}))
		defer srv.Close()
		roots := x509.NewCertPool()
		roots.AddCert(srv.Certificate())
		ask := func(rt http.RoundTripper) (int64, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := rt.RoundTrip(req)
			if err != nil {
				return 0, err
			}
			defer resp.Body.Close()
			return io.Copy(io.Discard, resp.Body)
		}
		if n, err := ask(Streaming(TrustedConfig{RootCAs: roots, MaxBody: 1 << 10})); err != nil || n != size {
			t.Errorf("%d bytes, error %v", n, err)
		}
		if _, err := ask(Streaming(TrustedConfig{})); err == nil {
			t.Error("an unknown certificate was accepted")
		}
	})
}
