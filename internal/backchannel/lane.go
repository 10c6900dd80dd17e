package backchannel

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// enter waits for a turn, first among the notices to one host and then among
// all, so that a host that is slow holds up nobody else. The error is that of the
// end of the notifier.
func (n *Notifier) enter(uri string) (leave func(), err error) {
	host := uri
	if u, err := url.Parse(uri); err == nil {
		host = strings.ToLower(u.Hostname()) // one host in another spelling, or at another port, gets no more
	}
	n.mu.Lock()
	l := n.hosts[host]
	if l == nil {
		l = &lane{slots: make(chan struct{}, max(1, n.cfg.InFlight/4))}
		n.hosts[host] = l
	}
	l.users++
	n.mu.Unlock()
	release := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(n.hosts, host)
		}
	}
	select {
	case l.slots <- struct{}{}:
	case <-n.ctx.Done():
		release()
		return nil, n.ctx.Err()
	}
	select {
	case n.inFlight <- struct{}{}:
	case <-n.ctx.Done():
		<-l.slots
		release()
		return nil, n.ctx.Err()
	}
	return func() {
		<-n.inFlight
		<-l.slots
		release()
	}, nil
}

// note writes what became of a notice.
func (n *Notifier) note(x Notice, code string, data map[string]string) {
	n.cfg.Audit.Note(audit.Event{
		Time: n.cfg.Now(), Type: audit.TypeLogoutNotice, Ref: x.Ref, Client: x.ClientID, User: x.Subject, Rule: "OIDC-09", Code: code, Data: data,
	})
}

func itoa(n int) string { return strconv.Itoa(n) }
