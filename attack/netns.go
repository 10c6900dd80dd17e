package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Addresses that look public. Every address of the namespace is its own, so
// nothing that is sent leaves it.
const (
	asAddr       = "93.184.216.50"
	replicaAddr  = "93.184.216.53"
	twinAddr     = "93.184.216.57"
	goodAddr     = "93.184.216.34"
	evilAddr     = "93.184.216.40"
	mcpAddr      = "93.184.216.51"
	upstreamAddr = "93.184.216.52"
	databaseAddr = "93.184.216.60"
	resolverAddr = "1.1.1.1"
)

// prepareNamespace makes the network of the namespace that run.sh started us in:
// every IPv4 and IPv6 address is local, names are asked of our own server.
func prepareNamespace(dir string) error {
	links, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		return err
	}
	out, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	if strings.Count(string(out), "\n") != 1 {
		return fmt.Errorf("this is not a network namespace of its own: it has %d interfaces (%v); start it with run.sh", strings.Count(string(out), "\n"), links)
	}
	steps := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo"},
		{"ip", "-6", "route", "add", "local", "::/0", "dev", "lo"},
	}
	for _, a := range canaryAddrs {
		if a.Is6() && !a.Is4In6() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLoopback() {
			steps = append(steps, []string{"ip", "-6", "addr", "add", a.String() + "/128", "dev", "lo", "nodad"})
		}
	}
	for _, s := range steps {
		if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(s, " "), err, out)
		}
	}
	return mountFiles(dir, "127.0.0.1 unused-name\n")
}

// mountFiles puts files of our own in the place of the system's, inside the
// mount namespace only.
func mountFiles(dir, hosts string) error {
	for name, text := range map[string]string{
		"resolv.conf": "nameserver " + resolverAddr + "\noptions timeout:2 attempts:2\n", "hosts": hosts,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
		if out, err := exec.Command("mount", "--bind", path, "/etc/"+name).CombinedOutput(); err != nil {
			return fmt.Errorf("mount /etc/%s: %w: %s", name, err, out)
		}
	}
	return nil
}

// setHosts rewrites /etc/hosts, which is our own file since mountFiles.
func setHosts(text string) error { return os.WriteFile("/etc/hosts", []byte(text), 0o644) }
