# The verbs of this repository. `make demo` runs the main job, `make test` passes
# the tests; both need only Go, make and git, and say what they install.

.PHONY: build demo test lint fuzz races interop bench attack attack-full attack-planted cover docs clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/bonafide ./cmd/bonafide

demo: build
	./bin/bonafide demo

test:
	@scripts/test.sh

lint:
	@scripts/lint.sh

fuzz:
	@scripts/fuzz.sh $(or $(TIME),30s)

races:
	BONAFIDE_ROUNDS=$(or $(ROUNDS),1000) go test ./internal/housetest -run '^TestContests' -count=1 -timeout 0 -v

interop:
	cd interop && ./run.sh

bench:
	cd bench && ./run.sh $(or $(TIME),3s)

attack:
	cd attack && ./run.sh $(ARGS)

attack-full:
	cd attack && ./run.sh -scale full -only $(or $(ONLY),DS,CA-07) $(ARGS)

attack-planted:
	cd attack && ./run.sh -planted $(ARGS)

cover:
	go test -coverprofile=coverage.out ./... && go tool cover -func=coverage.out | tail -n 1

docs:
	go run ./internal/housetest/conformance

clean:
	rm -rf bin coverage.out
