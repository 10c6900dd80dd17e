package server

import (
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/authorize"
	"github.com/bonafide-id/bonafide/internal/token"
	"github.com/bonafide-id/bonafide/internal/web"
)

// DeviceConfig says whether devices that have no browser of their own can be
// connected (RFC 8628). Of clients with a document, only those that a rule of the
// policy names may use it.
type DeviceConfig struct {
	Enabled  bool          `yaml:"enabled"`
	Life     time.Duration `yaml:"life"`     // of a code
	Interval time.Duration `yaml:"interval"` // between two polls
}

func defaultDevice() DeviceConfig {
	return DeviceConfig{Enabled: true, Life: 10 * time.Minute, Interval: 5 * time.Second}
}

func (d DeviceConfig) check() error {
	if d.Life < time.Minute || d.Life > 30*time.Minute {
		return fmt.Errorf("device.life: %v is not between 1m and 30m", d.Life)
	}
	if d.Interval < time.Second || d.Interval > time.Minute || d.Interval%time.Second != 0 {
		return fmt.Errorf("device.interval: %v is not a number of seconds between 1s and 1m", d.Interval)
	}
	return nil
}

// deviceFlow returns the device flow for the authorization endpoint, or nil.
func (s *Server) deviceFlow(master []byte) *authorize.DeviceFlow {
	d := s.cfg.Device
	if !d.Enabled {
		return nil
	}
	return &authorize.DeviceFlow{
		Devices: s.store, Named: s.directory.Named, CodeKey: web.DeriveKey(master, "user codes"),
		Life: d.Life, Pace: d.Interval,
	}
}

// deviceCodes returns the codes of devices for the token endpoint, or nil.
func (s *Server) deviceCodes() token.Devices {
	if !s.cfg.Device.Enabled {
		return nil
	}
	return s.store
}
