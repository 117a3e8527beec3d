# Assembles the flake's outputs from the other files of this folder.
{ nixpkgs, nix2container, ... }@inputs:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    fromJSON
    listToAttrs
    mapAttrs
    readFile
    tail
    toJSON
    ;

  lib = import ./lib.nix;

  system = "x86_64-linux";
  cudaFloor = "12.8";
  pkgs = nixpkgs.legacyPackages.${system};

  userlandLock = fromJSON (readFile ./userland/lock.json);
  environmentsLock = fromJSON (readFile ./environments/lock.json);
  tiers = import ./tiers.nix;

  fetch = import ./fetch.nix { inherit pkgs; };
  buildroot = import ./buildroot.nix {
    inherit pkgs;
    debs = map (deb: deb.file) (userland.debs "buildroot");
    hash = userlandLock.buildroot;
  };
  plugin = import ./plugin.nix { inherit system buildroot; };
  userland = import ./userland.nix {
    inherit fetch plugin;
    lock = userlandLock;
  };
  environments = import ./environments.nix {
    inherit fetch plugin;
    lock = environmentsLock;
  };
  layer = import ./layer.nix { inherit plugin; };
  image = import ./image.nix {
    inherit plugin cudaFloor;
    inherit (nix2container.packages.${system}) nix2container;
  };

  sources =
    name: path:
    builtins.path {
      inherit name path;
      filter = file: type: baseNameOf file != "__pycache__";
    };

  comfyui = import ./comfyui.nix {
    inherit layer plugin inputs;
    standin = [
      {
        source = sources "comfyui-standin" ../tests/standin;
        target = "opt/comfyui";
      }
      # It parses by the facts that our own check uses.
      {
        source = builtins.path {
          path = ../python/hearmeman/tune/cli-flags.json;
          name = "cli-flags.json";
        };
        target = "opt/comfyui/cli-flags.json";
      }
    ];
  };

  models = import ./models.nix { inherit pkgs layer; };

  # The voice servers, for every environment that has an engine, and voices that these may imitate: two layers,
  # since one changes often and is small, and the other never changes.
  voice = [
    (layer {
      name = "voices";
      trees = [
        {
          source = builtins.path {
            name = "voices";
            path = ../voices;
            filter = file: type: builtins.match ".*\\.wav" file != null;
          };
          target = "opt/hearmeman/voices";
        }
      ];
    })
    (layer {
      name = "voice";
      # A change of it is to be a small push.
      compiled = false;
      trees = [
        {
          source = sources "hearmeman_voice" ../python/hearmeman_voice;
          target = "opt/hearmeman/voice/hearmeman_voice";
        }
      ];
      texts = {
        "opt/hearmeman/bin/xtts-vo-gen" = readFile ./userland/xtts-vo-gen;
      };
      # Where the template that this replaces had it.
      links = {
        "xtts-vo-gen.py" = "/opt/hearmeman/bin/xtts-vo-gen";
      };
    })
  ];

  # The last, small layer: our package, the workflows and this tier's defaults.
  product =
    name: tier: baked:
    layer {
      name = "hearmeman-${name}";
      trees = [
        {
          source = sources "hearmeman" ../python/hearmeman;
          target = "opt/env/runtime/lib/python3.11/site-packages/hearmeman";
        }
        {
          source = sources "workflows" ../workflows;
          target = "opt/hearmeman/workflows";
        }
        {
          # Our own nodes, and our workflows among the templates of ComfyUI's page.
          source = sources "comfyui-node" ../comfyui_node;
          target = "opt/comfyui-nodes/hearmeman";
        }
        {
          source = sources "shims" ./userland/shims;
          target = "";
        }
        {
          source = tier.catalogue;
          target = "opt/hearmeman/catalogue.toml";
        }
      ]
      ++ models.lockTree tier.catalogue
      ++ comfyui.facts tier;
      # Where people look for logs; boot makes /run/hearmeman/logs.
      links = {
        "var/log/comfyui.log" = "/run/hearmeman/logs/comfyui.log";
        "var/log/download_models.log" = "/run/hearmeman/logs/models.log";
        # sshd keeps it, and complains where there is none.
        "var/log/lastlog" = "/run/hearmeman/lastlog";
        "var/log/jupyter.log" = "/run/hearmeman/logs/jupyter.log";
        "var/log/r2_sync.log" = "/run/hearmeman/logs/sync.log";
      }
      // (
        # The worker's process runs beside the SDK.
        if elem "worker" tier.environments then
          {
            "opt/env/worker/lib/python3.11/site-packages/hearmeman" =
              "/opt/env/runtime/lib/python3.11/site-packages/hearmeman";
          }
        else
          { }
      );
      texts = {
        "opt/env/runtime/bin/hearmeman" = readFile ./userland/hearmeman;
        "opt/hearmeman/image.json" = toJSON {
          tier = name;
          comfyui_rev = comfyui.commit tier;
          comfyui_python = "/opt/env/${tier.comfyuiEnvironment}/bin/python";
          comfyui_main = "/opt/comfyui/main.py";
          inherit (tier) services;
          services_without_gpu = tier.servicesWithoutGpu;
          jupyter_python = if elem "jupyter" tier.environments then "/opt/env/jupyter/bin/python" else "";
          worker_python = if elem "worker" tier.environments then "/opt/env/worker/bin/python" else "";
          cuda_floor = cudaFloor;
          env = tier.defaults;
          inherit (tier) recommended;
          comfyui_arguments = tier.comfyuiArguments;
          environment_key = comfyuiKey tier;
          node_folders = tier.nodeFolders;
          # Its classes are for a real ComfyUI.
          silent_nodes = if tier.comfyui == null then [ "hearmeman" ] else [ ];
          models_dir = if baked then "/opt/models" else "";
        };
      };
    };

  # Changes when and only when ComfyUI's Python packages do: what a user added on the volume was built for these.
  comfyuiKey =
    tier:
    let
      name = tier.comfyuiEnvironment;
    in
    builtins.substring 0 16 (builtins.hashString "sha256" (toJSON (environments.entries name)));

  layersOf =
    name: tier: baked:
    userland.layers tier.userland
    ++ environments.layers tier.environments
    ++ comfyui.layers tier
    ++ (if tier.services == { } then [ ] else voice)
    ++ [ (product name tier baked) ];

  # `baked` names entries of ./variants.nix; a tier's own layers come first, so that variants share them.
  imageOf =
    name: baked:
    let
      tier = tiers.${name};
      full = concatStringsSep "-" ([ name ] ++ map (variant: variant.suffix) baked);
      files = models.files tier.catalogue (concatMap (variant: variant.models) baked);
    in
    image {
      name = full;
      layers = layersOf name tier (files != [ ]) ++ map models.layerOf files;
      comfyuiRevision = comfyui.commit tier;
    };

  images = mapAttrs (name: tier: imageOf name [ ]) tiers;

  variantsOf =
    name:
    filter (
      variant: if variant ? tiers then elem name variant.tiers else tiers.${name}.comfyui != null
    ) (import ./variants.nix);

  layers = listToAttrs (
    map (value: {
      inherit (value) name;
      inherit value;
    }) (concatMap (name: layersOf name tiers.${name} false) (attrNames tiers))
  );

  # The stand-in for nixpkgs has no Python; the machine's own locked environment is used there.
  command =
    if pkgs ? python311 then
      import ./command.nix {
        inherit pkgs;
        inherit (inputs) poetry2nix;
      }
    else
      null;
in
{
  packages.${system} =
    listToAttrs (
      map (name: {
        name = "image-${name}";
        value = images.${name};
      }) (attrNames tiers)
    )
    // layers
    // environments.built
    // {
      inherit buildroot;
      default = images.smoke;
    }
    // (if command == null then { } else { hearmeman = command.package; });

  devShells.${system} =
    if command == null then
      { }
    else
      {
        default = pkgs.mkShell {
          packages = [
            command.environment
            pkgs.skopeo
            pkgs.zstd
          ];
        };
      };

  checks.${system} =
    let
      failing = lib.failing (import ./lib.tests.nix);
    in
    if failing != [ ] then
      throw "nix/lib.tests.nix: ${concatStringsSep ", " failing} does not hold: compare `is` and `should` there"
    else
      mapAttrs (
        name: built:
        plugin {
          name = "check-image-${name}";
          module = "check_layout";
          arguments.image = built;
        }
      ) images;

  # `nix fmt`, where nixpkgs is; tests/build/test_nix_style.py checks what can be checked without it.
  formatter =
    if pkgs ? nixfmt-rfc-style then
      {
        ${system} = pkgs.nixfmt-rfc-style;
      }
    else
      { };

  # Apart from `packages`: one whose files are not locked ends evaluation.
  legacyPackages.${system} = listToAttrs (
    concatMap (
      name:
      map (baked: {
        name = concatStringsSep "-" ([ "image" name ] ++ map (variant: variant.suffix) baked);
        value = imageOf name baked;
      }) (tail (lib.choices (variantsOf name)))
    ) (attrNames tiers)
  );

  apps.${system} = import ./apps.nix {
    inherit pkgs command;
    inherit (inputs) self;
  };

  # An image by its tier's name, for a clear error where there is no such tier.
  lib.image =
    tier:
    images.${tier}
      or (throw "no tier ${tier}: nix/tiers.nix has ${concatStringsSep ", " (attrNames tiers)}");
}
