# Every fetch: a .deb, a wheel or a source package of a lock, by name and hash.
{ pkgs }:
let
  inherit (builtins)
    head
    match
    baseNameOf
    replaceStrings
    ;
in
{
  # `~` is not allowed in a store name.
  deb =
    # The lock's date, for the snapshot archive.
    snapshot: entry:
    pkgs.fetchurl {
      name = replaceStrings [ "~" ] [ "_" ] (baseNameOf entry.file);
      inherit (entry) sha256;
      urls = [
        "mirror://debian/${entry.file}"
        # Superseded versions leave the pool; the archive of that day keeps them.
        "https://snapshot.debian.org/archive/${entry.archive}/${snapshot}/${entry.file}"
      ];
    };

  wheel =
    entry:
    let
      parts = match "([^-]+)-([^-]+)-([^-]+)-([^-]+)-([^-]+)\\.whl" entry.file;
      part = builtins.elemAt parts;
      usable = match "(any|.*linux.*_x86_64.*)" (part 4) != null && match ".*musllinux.*" (part 4) == null;
    in
    if parts == null then
      throw "${entry.file} in nix/environments/lock.json is not a wheel's name: run `make lock`"
    else if !usable then
      throw (
        "${entry.file} in nix/environments/lock.json is for another platform: the image is linux x86_64; "
        + "run `make lock`"
      )
    else
      pkgs.fetchPypi {
        pname = head parts;
        version = part 1;
        format = "wheel";
        dist = part 2;
        python = part 2;
        abi = part 3;
        platform = part 4;
        inherit (entry) sha256;
      };

  # Only for packages that publish no wheel.
  sdist =
    entry:
    let
      parts = match "(.+)-[^-]+\\.tar\\.gz" entry.file;
    in
    if parts == null then
      throw "${entry.file} in nix/environments/lock.json is neither a wheel nor a .tar.gz: run `make lock`"
    else
      pkgs.fetchPypi {
        pname = head parts;
        inherit (entry) version sha256;
        format = "setuptools";
      };
}
