# What `nix run` offers: the host's command on the checkout that it is called in, with the programs that it calls.
{
  # The flake's own source.
  self,
  pkgs,
  # What ./command.nix makes; null with the stand-in for nixpkgs.
  command,
}:
let
  inherit (builtins) mapAttrs unsafeDiscardStringContext;

  about = {
    doctor = "says what this machine lacks for building and pushing an image";
    hearmeman = "the pod's command, on a machine of one's own";
    inspect = "an image's digest, its layers and their sizes";
    load = "puts an image into the local docker or podman";
    pod = "plans, makes, fills, runs and ends pods on RunPod";
    prefetch = "puts what an image is made of into the Nix store; with nixpkgs, only the models to bake";
    push = "pushes an image to a registry and records its digest";
    reproduce = "builds an image in two empty stores and compares";
    sbom = "lists the parts of an image, as CycloneDX";
    xtts-vo-gen = "has a pod speak a text";
  };

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
mapAttrs (name: description: {
  type = "app";
  program = if command == null then bare name else withTools name;
  meta.description = description;
}) about
