package demo_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/demo"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestTheInvitationLasts is about people who read what the demo prints before
// they open the address in it.
func TestTheInvitationLasts(t *testing.T) {
	out := &screen{addresses: make(chan string, 4)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- demo.Run(ctx, demo.Options{Out: out}) }()
	var address string
	select {
	case address = <-out.addresses:
	case err := <-ended:
		t.Fatalf("the demo ended: %v\n%s", err, out)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	issuer := u.Scheme + "://" + u.Host
	if u.Query().Get("request_uri") == "" {
		t.Fatalf("the agent pushed nothing: %s", address)
	}
	// What is pushed now waits as long as what the agent pushed.
	form := url.Values{
		"response_type": {"code"}, "client_id": {"https://reader.example/c.json"}, "redirect_uri": {"https://reader.example/cb"},
		"code_challenge": {oauth.S256(oauth.NewVerifier())}, "code_challenge_method": {"S256"},
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, issuer+"/par", strings.NewReader(form.Encode()))
	req.RequestURI = ""
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var pushed struct {
		Life int `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&pushed); err != nil {
		t.Fatal(err)
	}
	t.Run("PAR-05 whoever reads for a few minutes before opening the address is still asked", func(t *testing.T) {
		if pushed.Life != 600 {
			t.Errorf("%d: the address is good for %d seconds", resp.StatusCode, pushed.Life)
		}
	})
	cancel()
	<-ended
}
