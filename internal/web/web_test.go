package web

import (
	"errors"
	"io"
	"log/slog"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// errSecret stands for what must never be seen outside.
var errSecret = errors.New("dial tcp 10.0.0.7:5432: password=hunter2")
