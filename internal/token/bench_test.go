package token

import (
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// benchChains is how many clients refresh at a time.
const benchChains = 16

// BenchmarkRefresh is the refresh grant through the edge, each worker with a
// chain of its own. Compare it with BenchmarkFloor: the ratio is what counts.
func BenchmarkRefresh(b *testing.B) {
	h := newHouse(b)
	chains := make(chan string, benchChains*runtime.GOMAXPROCS(0))
	for range cap(chains) {
		chains <- h.ok(b, h.consent(b, public).form()).get("refresh_token")
	}
	b.SetParallelism(benchChains)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		token := <-chains
		for pb.Next() {
			r := h.post("/token", refreshForm(public, token))
			if token = r.get("refresh_token"); token == "" {
				b.Error(r.body)
				return
			}
		}
	})
	perCommit(b, h)
}

func perCommit(b *testing.B, h *house) {
	if st := h.store.Stats(); st.Commits > 0 {
		b.ReportMetric(float64(st.Jobs)/float64(st.Commits), "jobs/commit")
	}
}

// BenchmarkFloor is the least such an endpoint can do: one form, one ES256
// signature, one row under a hash through the same writer, one answer.
func BenchmarkFloor(b *testing.B) {
	h := newHouse(b)
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: h.clock.now})
	if err != nil {
		b.Fatal(err)
	}
	h.mux.Handle("/floor", edge.API(func(w http.ResponseWriter, r *http.Request) error {
		p, err := web.ParseBody(r)
		if err != nil {
			return err
		}
		token, err := h.key.Sign("at+jwt", map[string]string{"sub": p.Form["client_id"], "jti": oauth.RandomToken(16)})
		if err != nil {
			return err
		}
		now := h.clock.now()
		if err := h.store.SpendID(r.Context(), issuer, store.HashOf(token), now.Add(time.Hour), now); err != nil {
			return err
		}
		return web.WriteJSON(w, http.StatusOK, map[string]string{"access_token": token, "refresh_token": p.Form["refresh_token"]})
	}))
	b.SetParallelism(benchChains)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		n := 0
		for pb.Next() {
			n++
			if r := h.post("/floor", refreshForm(public, strconv.Itoa(n))); r.status != http.StatusOK {
				b.Error(r.body)
				return
			}
		}
	})
	perCommit(b, h)
}
