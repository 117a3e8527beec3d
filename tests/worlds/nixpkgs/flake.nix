# Another world behind the same names: its fetches are other derivations, with the same names and hashes.
{
  outputs =
    { self }:
    let
      fixed =
        mode: name: hash:
        derivation {
          inherit name;
          system = "x86_64-linux";
          builder = "/another/builder";
          args = [ "another world" ];
          outputHash = hash;
          outputHashAlgo = "sha256";
          outputHashMode = mode;
        };
    in
    {
      legacyPackages.x86_64-linux = {
        dpkg = "/another/dpkg";
        python311 = "/another/python311";
        mkShell = arguments: arguments;
        git = "/another/git";
        skopeo = "/another/skopeo";
        zstd = "/another/zstd";
        writeShellApplication =
          {
            name,
            runtimeInputs,
            text,
          }:
          derivation {
            inherit name runtimeInputs text;
            system = "x86_64-linux";
            builder = "/another/builder";
          };
        fetchurl =
          {
            name,
            sha256,
            urls,
          }:
          fixed "flat" name sha256;
        fetchPypi =
          a:
          fixed "flat" (
            if a.format == "wheel" then
              "${a.pname}-${a.version}-${a.python}-${a.abi}-${a.platform}.whl"
            else
              "${a.pname}-${a.version}.tar.gz"
          ) a.sha256;
        runCommand =
          name: attrs: command:
          fixed attrs.outputHashMode name attrs.outputHash;
      };
    };
}
