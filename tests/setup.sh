#!/usr/bin/env bash
# Installs the peers that the system tests talk to, under target/peers: the
# official conformance runner, SDKs and servers, in the versions that
# tests/peers pins. A second run finds everything done and takes a moment.
# Packages come from the registries that npm and pip of this machine are set up
# with. Only PostgreSQL and valgrind are installed outside target/peers, with
# apt, if the machine has none; nothing of them need run.
set -euo pipefail

cd "$(dirname "$0")/.."
source=tests/peers
peers=target/peers
log=$peers/setup.log

fail() {
    echo "tests/setup.sh: $1" >&2
    [ ! -s "$log" ] || { echo "the end of $log:" >&2; tail -n 15 "$log" >&2; }
    exit 1
}

# Installs $1 by running "$4...", unless it is there from the same inputs, whose
# hash is $2. $3 is the package manager, for the error.
once() {
    local name=$1 stamp=$2 manager=$3
    shift 3
    if [ "$(cat "$peers/$name.stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    echo "installing $name" >&2
    rm -f "$peers/$name.stamp"
    "$@" >"$log" 2>&1 || fail "could not install $name: is the registry reachable that $manager is set up with?"
    echo "$stamp" >"$peers/$name.stamp"
}

install_node() {
    cp "$source/package.json" "$source/package-lock.json" "$source/.npmrc" "$peers/" &&
        npm ci --prefix "$peers" --no-update-notifier &&
        "$peers/node_modules/.bin/node" --version
}

install_python() {
    local name=$1
    rm -rf "${peers:?}/$name" &&
        "$python" -m venv "$peers/$name" &&
        "$peers/$name/bin/pip" install --quiet --disable-pip-version-check -r "$source/$name.txt" &&
        "$peers/$name/bin/pip" check
}

# Takes single documents out of packages: to install the packages whole would
# bring hundreds of megabytes that no test looks at.
install_documents() {
    local name manager package path sum scratch=$peers/documents.tmp
    rm -rf "${peers:?}/documents" "$scratch" && mkdir -p "$peers/documents" || return 1
    while read -r name manager package path sum; do
        case $name in '' | '#'*) continue ;; esac
        rm -rf "$scratch" && mkdir -p "$scratch" || return 1
        case $manager in
        npm)
            npm pack --silent --pack-destination "$scratch" "$package" &&
                tar -xzf "$scratch"/*.tgz -C "$scratch" "$path" || return 1
            ;;
        pip)
            "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
                -d "$scratch" "$package" &&
                "$python" -m zipfile -e "$scratch"/*.whl "$scratch" || return 1
            ;;
        *)
            echo "$name: no package manager $manager"
            return 1
            ;;
        esac
        echo "$sum  $scratch/$path" | sha256sum --check --status || {
            echo "$name: $path of $package is not what it was"
            return 1
        }
        mv "$scratch/$path" "$peers/documents/$name" || return 1
    done <"$source/documents.txt"
    rm -rf "$scratch"
}

install_package() {
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    "${sudo[@]}" apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$1"
}

hash_of() {
    cat "$@" | sha256sum | cut -d ' ' -f 1
}

for tool in npm python3 flock sha256sum; do
    command -v "$tool" >/dev/null || fail "$tool is needed and not installed"
done
python=$(command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10"

mkdir -p "$peers"
exec 9>"$peers/lock"
flock --wait 900 9 || fail "another run holds $peers/lock for 15 minutes"
: >"$log"

once node "$(hash_of "$source"/package.json "$source"/package-lock.json "$source"/.npmrc)" npm install_node
python_version=$("$python" --version)
for venv in py1 py2 openapi; do
    once "$venv" "$(hash_of "$source/$venv.txt") $python_version" pip install_python "$venv"
done
once documents "$(hash_of "$source/documents.txt")" "npm or pip" install_documents
if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    echo "installing postgresql" >&2
    install_package postgresql >"$log" 2>&1 || fail "could not install postgresql: the tests of the database agent need it"
fi
if ! command -v valgrind >/dev/null; then
    echo "installing valgrind" >&2
    install_package valgrind >"$log" 2>&1 || fail "could not install valgrind: it counts the codec's instructions"
fi
