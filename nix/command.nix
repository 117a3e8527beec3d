# The commands of pyproject.toml for a machine that has nixpkgs, by poetry2nix from poetry.lock.
#
# The environments inside the image are not poetry2nix's: its Python is nixpkgs', theirs is Debian's.
{
  pkgs,
  # poetry2nix's source.
  poetry2nix,
}:
let
  library = import poetry2nix { inherit pkgs; };

  common = {
    python = pkgs.python311;
    pyproject = ../pyproject.toml;
    poetrylock = ../poetry.lock;
    # Those of the lock for this platform: a source distribution of hf-xet would need a compiler for Rust.
    preferWheels = true;
    groups = [
      "main"
      "host"
    ];
    checkGroups = [ ];
  };
in
{
  # `hearmeman`, `hearmeman-build` and `hearmeman-pod`.
  package = library.mkPoetryApplication (
    common
    // {
      projectDir = ../.;
      src = builtins.path {
        path = ../.;
        name = "hearmeman-source";
        filter =
          path: type:
          builtins.match "${toString ../.}/(python(/.*)?|pyproject\\.toml|README\\.md)" path != null
          && baseNameOf path != "__pycache__";
      };
    }
  );

  # A Python with all that they import, for a checkout.
  environment = library.mkPoetryEnv (common // { projectDir = ../.; });
}
