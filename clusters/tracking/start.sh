#!/bin/sh
# MLflow's server for a team: records in PostgreSQL, artifacts in an S3 store, accounts.
#
#   start.sh SETTINGS                start the server
#   start.sh SETTINGS COMMAND...     start another command with the same settings
#
# Passwords are in the file SETTINGS and in the environment, never on a command line.
set -eu
settings=$(realpath "$1")
shift
if [ -n "$(find "$settings" -perm /077)" ]; then
    echo "$settings has passwords and others may read it: chmod 600 $settings" >&2
    exit 2
fi
set -a
. "$settings"
: "${PGPASSWORD:?is empty in $settings}" "${AWS_SECRET_ACCESS_KEY:?is empty in $settings}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?is empty in $settings}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?is empty in $settings}"
# PostgreSQL's client takes the password from PGPASSWORD.
MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE"
MLFLOW_AUTH_CONFIG_PATH="$settings.accounts.ini"
MLFLOW_DISABLE_TELEMETRY=true
MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false  # six processes for features that are not used here
set +a
printf '[mlflow]\ndefault_permission = EDIT\ndatabase_uri = %s\n' "$MLFLOW_BACKEND_STORE_URI" \
    > "$MLFLOW_AUTH_CONFIG_PATH"
if [ $# -gt 0 ]; then
    exec "$@"
fi
# Clients reach artifacts through the server, so they need no key of the S3 store. The server
# answers to the names in --allowed-hosts only: a page elsewhere cannot use a browser's login.
exec mlflow server --app-name basic-auth \
    --host "$HOST" --port "$PORT" --workers "$WORKERS" --allowed-hosts "$ALLOWED_HOSTS" \
    --artifacts-destination "$ARTIFACTS"
