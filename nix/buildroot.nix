# The tree that runs every build plugin: ld.so, python3.11 and zstd from pinned .debs, fixed-output.
#
# nixpkgs' dpkg makes it there, the prefetch step makes it here; its hash is in the lock, so both give
# the same path or fail.
{
  pkgs,
  # The buildroot's .debs, fetched.
  debs,
  # Its recursive sha256, SRI form.
  hash,
}:
pkgs.runCommand "buildroot"
  {
    outputHash = hash;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    nativeBuildInputs = [ pkgs.dpkg ];
    debs = map (deb: "${deb}") debs;
  }
  ''
    mkdir -p $out/usr/{bin,sbin,lib,lib64}
    for top in bin sbin lib lib64; do ln -s usr/$top $out/$top; done
    for deb in $debs; do
      dpkg-deb --fsys-tarfile $deb \
        | tar -C $out --keep-directory-symlink --no-same-owner --no-same-permissions -xf -
    done
    rm -rf $out/etc $out/var $out/usr/share/doc $out/usr/share/man $out/usr/share/locale
    # It is a link to /etc, which would be the host's.
    rm -f $out/usr/lib/python3.11/sitecustomize.py
    chmod -R u+w,go-w $out
  ''
