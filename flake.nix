# Inputs and outputs; no logic. Commits are pinned here and their hashes in flake.lock.
{
  description = "hearmeman: reproducible ComfyUI images for RunPod GPU pods";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/1cabc318c11299f07ca53e3cb719854682fe6eb3";
    nix2container = {
      url = "github:nlewo/nix2container/20d339590c3c36252514a57b0241c47bcd8a08ce";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    # Its source alone: as a flake it would bring five inputs more.
    poetry2nix = {
      url = "github:nix-community/poetry2nix/ce2369db77f45688172384bbeb962bc6c2ea6f94";
      flake = false;
    };

    # ComfyUI at COMFYUI_COMMIT, then one input for each custom node.
    comfyui = {
      url = "github:Comfy-Org/ComfyUI/72865f4f27eaf5396f8f36370e0a2be3a9a090ee";
      flake = false;
    };
    comfyui-chatterbox = {
      url = "github:wildminder/ComfyUI-Chatterbox/f0300cf84ee1b8fc9cbd38cb68cb3bace1895063";
      flake = false;
    };
    comfyui-controlnet-aux = {
      url = "github:Fannovel16/comfyui_controlnet_aux/e8b689a513c3e6b63edc44066560ca5919c0576e";
      flake = false;
    };
    comfyui-flashportrait = {
      url = "github:okdalto/ComfyUI-FlashPortrait/25598f3d78206eb597f88b0e251941152f29a5c0";
      flake = false;
    };
    comfyui-gguf = {
      url = "github:city96/ComfyUI-GGUF/795e45156ece99afbc3efef911e63fcb46e6a20d";
      flake = false;
    };
    comfyui-kjnodes = {
      url = "github:kijai/ComfyUI-KJNodes/3f20054214fec9f9234fd3841ae6f1e4287948f6";
      flake = false;
    };
    comfyui-scail-pose = {
      url = "github:kijai/ComfyUI-SCAIL-Pose/11402b150d728440a4a89964faa58907f84c35e6";
      flake = false;
    };
    comfyui-turbodiffusion = {
      url = "github:anveshane/Comfyui_turbodiffusion/b109d0847bbffa2ea134c152f11ae5769e61c3fa";
      flake = false;
    };
    comfyui-videohelpersuite = {
      url = "github:Kosinkadink/ComfyUI-VideoHelperSuite/4ee72c065db22c9d96c2427954dc69e7b908444b";
      flake = false;
    };
    comfyui-wananimatepreprocess = {
      url = "github:kijai/ComfyUI-WanAnimatePreprocess/1a35b81a418bbba093356ad19b19bf2a76a24f4e";
      flake = false;
    };
    comfyui-wanvideowrapper = {
      url = "github:kijai/ComfyUI-WanVideoWrapper/088128b224242e110d3906c6750e9a3a348a659b";
      flake = false;
    };
    # Upstream's code of what our own nodes run. Of Genfocus an early commit, whose tree is small:
    # the layers are the same, line by line, in its release of March 2026, which the nodes follow.
    genfocus = {
      url = "github:rayray9999/Genfocus/aeab879f3e594d6144752403e324ae5b2b590efb";
      flake = false;
    };
    mvinverse = {
      url = "github:Maddog241/mvinverse/6a7fa82a1b23aaf062c684cfef32bb0258a3a1a9";
      flake = false;
    };
    vibevoice-comfyui = {
      url = "github:Enemyx-net/VibeVoice-ComfyUI/9185f531ac45fc67576f9877caf1a6c8c7d340b5";
      flake = false;
    };
  };

  outputs = inputs: import ./nix inputs;
}
