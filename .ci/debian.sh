# Sourced by scripts here: Debian's packages unpacked into $folder/root, beside the system, without being root. apt keeps its lists
# in $folder too. Every function returns 1 where something cannot be had.

# Options of apt; more may be added.
apt_options=(-o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=
    -o "Dir::State::Status=/var/lib/dpkg/status")
# What LLVM needs and a small system may lack.
llvm_needs=(libz3-4 libedit2 libbsd0 libmd0 libxml2 libffi8)

update_lists() {
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" && apt-get "${apt_options[@]}" -qq update
}

# unpack PACKAGE..: into a fresh $folder/root.
unpack() {
    rm -rf "$folder/root" "$folder/packages"
    mkdir -p "$folder/packages" "$folder/root"
    (cd "$folder/packages" && apt-get "${apt_options[@]}" -qq download "$@") || return 1
    local package
    for package in "$folder"/packages/*.deb; do
        dpkg-deb --extract "$package" "$folder/root" || return 1
    done
    rm -rf "$folder/packages"
}

# missing PACKAGE..: these packages and all that they need, as far as the system has them not.
missing() {
    apt-get "${apt_options[@]}" -qq --print-uris --yes --no-install-recommends install "$@" |
        sed -n "s/^'[^']*' \([^_ ]*\)_.*/\1/p"
}

# first_need PATTERN PACKAGE..: the first package like PATTERN that one of these depends on.
first_need() {
    local pattern=$1
    shift
    apt-cache "${apt_options[@]}" depends "$@" | sed -n "s/^ *Depends: \($pattern\)$/\1/p" | head -n 1
}

# unpack_rust PACKAGE..: Debian's rustc (the package for browsers, which is recent), its library and LLVM, and these packages.
unpack_rust() {
    update_lists || return 1
    local standard llvm
    standard=$(first_need 'libstd-rust-web-[0-9.]*' libstd-rust-web-dev rustc-web)
    llvm=$(first_need 'libllvm[0-9]*' "$standard" rustc-web)
    unpack rustc-web libstd-rust-web-dev "$standard" "$llvm" "${llvm_needs[@]}" "$@"
}

# wrap TOOL..: scripts $folder/TOOL that run the unpacked tools with their libraries.
wrap() {
    local tool
    for tool; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/bin/%s "$@"\n' "$libraries:$root/lib" "$root" "$tool" >"$folder/$tool"
        chmod +x "$folder/$tool"
    done
}
