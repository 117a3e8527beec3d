# Stands in for nixpkgs on a machine that reaches only its package registries: every fetch is a
# fixed-output path that the prefetch step has put into the store, and fails at once where it has not.
{
  outputs =
    { self }:
    let
      # builtin:fetchurl needs no shell, no network and no sandbox path; Nix prints the address that it
      # cannot read, and the address says what to do.
      prefetched =
        {
          name,
          outputHash,
          outputHashMode ? "flat",
        }:
        derivation {
          inherit name outputHash outputHashMode;
          outputHashAlgo = "sha256";
          builder = "builtin:fetchurl";
          system = "builtin";
          url = "file:///not-in-the-store/run-make-prefetch-first/${name}";
          unpack = false;
          executable = false;
          preferLocalBuild = true;
        };
    in
    {
      legacyPackages.x86_64-linux = {
        dpkg = null;

        fetchurl =
          {
            name,
            sha256,
            urls ? [ ],
          }:
          prefetched {
            inherit name;
            outputHash = sha256;
          };

        fetchPypi =
          {
            pname,
            version,
            format,
            sha256,
            dist ? "",
            python ? "",
            abi ? "",
            platform ? "",
          }:
          prefetched {
            name =
              if format == "wheel" then
                "${pname}-${version}-${python}-${abi}-${platform}.whl"
              else
                "${pname}-${version}.tar.gz";
            outputHash = sha256;
          };

        # Only fixed-output steps can be had without nixpkgs.
        runCommand =
          name: attrs: command:
          prefetched {
            inherit name;
            inherit (attrs) outputHash outputHashMode;
          };
      };
    };
}
