#!/usr/bin/env bash
# A Ray head that asks for a token and listens on the loopback alone. It stays in the foreground:
# Ctrl-C, or SIGTERM to this one process, ends it and all that it started.
# What is given goes to `ray start`: ray_jobs/deploy/head.sh --num-cpus=8
set -euo pipefail
umask 077

environment=$(dirname "${BASH_SOURCE[0]}")/../../.venv/bin
if [ -x "$environment/ray" ]; then
	PATH=$(cd "$environment" && pwd):$PATH  # jobs run the `python` that is found first
fi

export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.synth-ct/ray-token}
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
	mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
	python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

case " $* " in
*" --node-ip-address="*) ;;  # several machines: docs/cluster.md says what must guard the ports
*) export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 ;;  # in spite of its name: all on the loopback
esac
export RAY_USAGE_STATS_ENABLED=0
# Colours are noise in the log of a job, and lines must come when they are said.
export NO_COLOR=1 PYTHONUNBUFFERED=1

exec ray start --head --block --disable-usage-stats --dashboard-host=127.0.0.1 "$@"
