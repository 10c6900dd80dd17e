package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Store keeps one [Grant] per key, which is the URL of a resource: a Store holds
// the grants of one user. Its shape is the promise: a grant changes only
// inside Update, so two programs never spend the same refresh token.
type Store interface {
	// Load returns the grant under key, or nil when there is none.
	Load(ctx context.Context, key string) (*Grant, error)
	// Update calls change with the grant under key (nil: none) and stores what
	// it returns (nil: removes it). From before the read until after the write
	// nobody else, in this process or another, is inside Update for the same
	// key. When change fails nothing is stored and its error is returned.
	Update(ctx context.Context, key string, change func(old *Grant) (*Grant, error)) error
}

// NewMemoryStore returns a Store that forgets everything with the process.
func NewMemoryStore() Store {
	return &memory{grants: map[string]Grant{}, locks: map[string]chan struct{}{}}
}

type memory struct {
	mu     sync.Mutex // guards both maps
	grants map[string]Grant
	locks  map[string]chan struct{} // holds one element while somebody is inside Update
}

func (m *memory) Load(_ context.Context, key string) (*Grant, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g, ok := m.grants[key]; ok {
		return &g, nil
	}
	return nil, nil
}

func (m *memory) Update(ctx context.Context, key string, change func(*Grant) (*Grant, error)) error {
	m.mu.Lock()
	lock := m.locks[key]
	if lock == nil {
		lock = make(chan struct{}, 1)
		m.locks[key] = lock
	}
	m.mu.Unlock()
	select {
	case lock <- struct{}{}:
		defer func() { <-lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	old, _ := m.Load(ctx, key)
	next, err := change(old)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if next == nil {
		delete(m.grants, key)
	} else {
		m.grants[key] = *next
	}
	return nil
}

// FileStore keeps grants as files in a directory of the user: one file per key,
// mode 0600, replaced in one step. A lock file beside each keeps programs that
// run at the same time apart. Where the system has a keychain, a Store over that
// is better: these files are not encrypted.
type FileStore struct{ dir string }

// NewFileStore returns a FileStore in dir, which is made if need be and must
// belong to the user alone.
func NewFileStore(dir string) (*FileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open token store: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open token store: %w", err)
	}
	if !info.IsDir() || othersMayRead(info.Mode()) {
		return nil, fmt.Errorf("open token store: %s must be a directory that only its owner can read (chmod 700)", dir)
	}
	return &FileStore{dir}, nil
}

func (s *FileStore) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".json")
}

// Load implements [Store].
func (s *FileStore) Load(_ context.Context, key string) (*Grant, error) {
	raw, err := os.ReadFile(s.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read token store: %w", err)
	}
	var g Grant
	if err := json.Unmarshal(raw, &g); err != nil {
		return nil, errors.New("read token store: the file is damaged; remove it and sign in again: " + s.path(key))
	}
	return &g, nil
}

// Update implements [Store].
func (s *FileStore) Update(ctx context.Context, key string, change func(*Grant) (*Grant, error)) error {
	path := s.path(key)
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return fmt.Errorf("lock token store: %w", err)
	}
	defer unlock()
	old, err := s.Load(ctx, key)
	if err != nil {
		return err
	}
	next, err := change(old)
	if err != nil {
		return err
	}
	if next == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write token store: %w", err)
		}
		return nil
	}
	if err := s.replace(path, next); err != nil {
		return fmt.Errorf("write token store: %w", err)
	}
	return nil
}

// replace writes a new file beside the old one and moves it there: a reader sees
// one or the other, and a crash loses neither.
func (s *FileStore) replace(path string, g *Grant) (err error) {
	raw, err := json.Marshal(g)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockFile waits for the exclusive lock on a file, which is made if need be and
// stays. The system lets go of the lock when the process dies.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		locked, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		if locked {
			return func() { f.Close() }, nil // closing unlocks
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		}
	}
}
