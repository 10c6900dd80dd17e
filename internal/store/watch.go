package store

import "sync"

// signals wakes those who watch for changes that others made.
type signals struct {
	mu sync.Mutex
	at map[chan struct{}]struct{}
}

// send wakes everybody if there is something to hear of.
func (s *signals) send(topics map[string]struct{}) {
	if len(topics) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.at {
		select {
		case c <- struct{}{}:
		default: // has been woken already
		}
	}
}
