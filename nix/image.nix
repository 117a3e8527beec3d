# Layers and a configuration to an OCI layout whose digest is known when it is built.
{
  plugin,
  nix2container,
  # Floor for the driver's CUDA version; rendered into the environment, the label and the pod request.
  cudaFloor,
}:
{
  name,
  layers,
  # ComfyUI's commit, or what stands in for it.
  comfyuiRevision,
  # Further variables of the image's environment.
  environment ? { },
}:
let
  variables = {
    PATH = "/opt/env/runtime/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    LANG = "C.UTF-8";
    HOME = "/root";
    NVIDIA_VISIBLE_DEVICES = "all";
    NVIDIA_DRIVER_CAPABILITIES = "compute,utility,video";
    NVIDIA_REQUIRE_CUDA = "cuda>=${cudaFloor}";
    COMFYUI_COMMIT = comfyuiRevision;
  }
  // environment;
  config = {
    Entrypoint = [
      "/usr/bin/tini"
      "--"
      "/opt/env/runtime/bin/hearmeman"
      "boot"
    ];
    Env = map (key: "${key}=${variables.${key}}") (builtins.attrNames variables);
    WorkingDir = "/workspace";
    ExposedPorts = {
      "22/tcp" = { };
      "8188/tcp" = { };
      "8888/tcp" = { };
      "19123/tcp" = { };
    };
    StopSignal = "SIGTERM";
    Labels = {
      "io.hearmeman.cuda-floor" = cudaFloor;
      "io.hearmeman.comfyui-commit" = comfyuiRevision;
    };
  };
in
plugin {
  name = "image-${name}";
  module = "image";
  arguments = {
    inherit layers config;
    tag = name;
    annotations = {
      "org.opencontainers.image.title" = "hearmeman-${name}";
      "io.hearmeman.comfyui-commit" = comfyuiRevision;
    };
  };
}
// {
  # nix2container's image of the same blobs; null where only the stand-in is at hand.
  nix2container = nix2container.buildImage {
    name = "hearmeman-${name}";
    tag = name;
    arch = "amd64";
    inherit config;
    # Ready blobs: nix2container reads their layers.json and makes nothing.
    layers = map (ready: ready // { nestedLayers = [ ]; }) layers;
  };
}
