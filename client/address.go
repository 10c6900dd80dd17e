package client

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// canonical returns the one spelling of a resource's URL: scheme and host in
// lower case, no fragment, and nothing added (CLI-08).
func canonical(resource string) (string, error) {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("not an absolute URL without user information")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())) {
		return "", errors.New("the resource must use https (http only on a loopback address)")
	}
	resource, _, _ = strings.Cut(resource, "#")
	_, after, _ := strings.Cut(resource, "://")
	end := strings.IndexAny(after, "/?")
	if end < 0 {
		end = len(after)
	}
	return u.Scheme + "://" + strings.ToLower(after[:end]) + after[end:], nil
}

// checkEndpoint accepts the address of an authorization server or one of its
// endpoints: https, and not inside a network that the resource is outside of.
// Only for a resource on this computer may it be http on this computer.
func checkEndpoint(target, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" || strings.Contains(raw, "#") {
		return fmt.Errorf("%q is not a plain absolute URL", raw)
	}
	t, err := url.Parse(target)
	if err != nil {
		return err
	}
	switch {
	case u.Scheme == "http" && loopbackName(u.Hostname()) && loopbackName(t.Hostname()):
		return nil
	case u.Scheme != "https":
		return fmt.Errorf("%q must use https", raw)
	case internalName(u.Hostname()) && !internalName(t.Hostname()):
		return fmt.Errorf("%q is not on the public Internet, and the resource is", raw)
	}
	return nil
}

func loopbackName(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// onThisComputer reports whether a document is served for trying things out: as
// authorization servers in development take it, over http and under one of the
// three names of this computer.
func onThisComputer(id string) bool {
	u, err := url.Parse(id)
	return err == nil && u.Scheme == "http" && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
}

// internal reports whether a URL leads to none of the public Internet.
func internal(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && internalName(u.Hostname())
}

// internalName reports whether a host is none of the public Internet.
func internalName(host string) bool { return safehttp.PublicHost(host) != nil }

func originOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

func same(want, got string) error {
	if want != got {
		return fmt.Errorf("%w: %s is not on %s", ErrMismatch, got, want)
	}
	return nil
}
