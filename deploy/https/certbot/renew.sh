#!/bin/sh
# Gets a certificate for DOMAIN from ACME_SERVER and renews it, for as long as it runs. `renew.sh check` only checks
# DOMAIN, EMAIL and ACME_SERVER: it creates /tmp/checked if they are valid, and waits.
set -eu

# Without a handler, PID 1 ignores SIGTERM, and docker stop takes 10 s.
trap 'exit 0' TERM INT

# A signal interrupts wait, but not a foreground command.
run() { "$@" & wait $!; }

# wrong VARIABLE VALUE EXPECTED. It waits instead of exiting: docker-compose 1 takes a service that has exited for healthy.
wrong() { echo "$1 is '$2': expected $3" >&2; run sleep infinity; exit 1; }

# is REGEX VALUE: whether all of VALUE matches. It may be of several lines, and then does not.
is() { printf '%s\n' "$2" | tr '\n' ' ' | grep -qxE "$1 "; }

label='[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'
is "($label\.)+$label" "$DOMAIN" && ! is '.*\.[0-9]+' "$DOMAIN" && [ ${#DOMAIN} -le 253 ] ||
  wrong DOMAIN "$DOMAIN" "a host name in lower case, such as example.com"
is '[^@ ]+@[^@ ]+\.[^@ ]+' "$EMAIL" || wrong EMAIL "$EMAIL" "an e-mail address, such as admin@example.com"
is 'https://[^ ]+' "$ACME_SERVER" ||
  wrong ACME_SERVER "$ACME_SERVER" "the address of an ACME directory, such as https://acme.example.com/directory"
if [ "${1:-}" = check ]; then
  touch /tmp/checked
  run sleep infinity
fi

# Certbot recommends two checks a day. Retry after a minute, then after twice as long each time, up to an hour:
# Let's Encrypt allows 5 failures, and one more every 12 minutes.
look=43200 first=60 most=3600
pause=$first
while :; do
  # Renew at once if the CA has changed, as after a trial with a staging CA.
  renewal=/certificates/renewal/$DOMAIN.conf force=
  if [ -e "$renewal" ] && ! grep -qxF "server = $ACME_SERVER" "$renewal"; then force=--force-renewal; fi
  if run certbot certonly --cert-name "$DOMAIN" --domain "$DOMAIN" --email "$EMAIL" --server "$ACME_SERVER" $force; then
    pause=$first
    run sleep $look
  else
    echo "no certificate from $ACME_SERVER for $DOMAIN: next try in $pause s" >&2
    run sleep $pause
    pause=$((pause * 2 < most ? pause * 2 : most))
  fi
done
