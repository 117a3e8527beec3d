# What `nix run` offers: the host's command on the checkout that it is called in, with the programs that it calls.
{
  # The flake's own source.
  self,
  pkgs,
  # What ./command.nix makes; null with the stand-in for nixpkgs.
  command,
}:
let
  inherit (builtins) listToAttrs map unsafeDiscardStringContext;

  names = [
    "doctor"
    "hearmeman"
    "inspect"
    "load"
    "pod"
    "push"
    "reproduce"
    "sbom"
    "xtts-vo-gen"
  ];

  withTools =
    name:
    "${
      pkgs.writeShellApplication {
        name = "hearmeman-${name}";
        runtimeInputs = [
          pkgs.git
          command.environment
          pkgs.skopeo
          pkgs.zstd
        ];
        # `HEARMEMAN_WORLD=offline nix run …` builds from what is prefetched.
        text = ''
          export HEARMEMAN_WORLD="''${HEARMEMAN_WORLD-nixpkgs}"
          exec python3 ${self}/nix/apps/run.py ${name} "$@"
        '';
      }
    }/bin/hearmeman-${name}";

  # The stand-in for nixpkgs has no programs: the machine's own are used. A path with the context of a source, which
  # nothing builds, ends Nix 2.8 with an assertion.
  bare = name: unsafeDiscardStringContext "${self}/nix/apps/${name}";
in
listToAttrs (
  map (name: {
    inherit name;
    value = {
      type = "app";
      program = if command == null then bare name else withTools name;
    };
  }) names
)
