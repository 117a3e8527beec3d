"""How outputs were uploaded before: a Python process for each file, boto3's own transfer, any object overwritten."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

if __name__ == "__main__":
    client = boto3.client(
        "s3",
        endpoint_url=os.environ["R2_ENDPOINT"],
        aws_access_key_id=os.environ["R2_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ["R2_SECRET_ACCESS_KEY"],
        config=Config(
            region_name="auto",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )
    transfer = TransferConfig(multipart_threshold=100 * 1024**2, multipart_chunksize=50 * 1024**2)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    for name in sys.argv[1:]:
        client.upload_file(name, os.environ["R2_BUCKET"], f"original/{today}/{Path(name).name}", Config=transfer)
