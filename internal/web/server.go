package web

import (
	"net/http"
	"time"
)

// NewServer returns a server for h whose bounds keep slow and oversized
// strangers from holding it (DS-09): 10 s for the headers, 30 s for the whole
// request, 60 s for the answer, 2 min idle, 64 KiB of headers (more than the
// 16 KiB that attestation headers need, ATT-11). The caller sets the address.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// SeeOther sends the browser on to an address below our own origin with 303, the
// only redirect that is right after a form with a password (AUTHZ-15). There is
// no body: nobody would see it.
func SeeOther(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
}
