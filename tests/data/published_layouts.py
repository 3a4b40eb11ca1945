"""Tiny data sets in the layouts that they are published in, and what is read from each."""

from __future__ import annotations

import json

Files = dict[str, object]


def coco(*photos: tuple[int, str, str], **marks: bool) -> dict:
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": i, "file_name": name, "width": 1} for i, name, _ in photos],
        "annotations": [
            {"id": 90 + i, "image_id": i, "caption": text} | marks for i, _, text in photos
        ],
    }


def narrative(dataset: str, image: str, text: str) -> str:
    entry = {"dataset_id": dataset, "image_id": image, "annotator_id": 93, "caption": text}
    return json.dumps(entry | {"timed_caption": [], "traces": [], "voice_recording": "a.ogg"})


def textcaps(split: str, image: str, *texts: str) -> dict:
    entries = [
        {"image_id": image, "set_name": split, "image_path": f"{split}/{image}.jpg"}
        | {"caption_id": n, "caption_str": text, "reference_strs": list(texts)}
        for n, text in enumerate(texts)
    ]
    hidden = [{"image_id": image, "set_name": split, "image_path": f"{split}/{image}.jpg"}]
    return {"dataset_type": split, "dataset_name": "textcaps", "data": entries or hidden}


# A layout's files; the photos that are found: id, split, captions.
LAYOUTS: dict[str, tuple[Files, dict]] = {
    **{
        f"COCO {year}": (
            {
                f"annotations/captions_train{year}.json": coco((9, f"{prefix}9.jpg", "a dog")),
                f"annotations/captions_val{year}.json": coco((7, f"{prefix}7.jpg", "a cat")),
                f"annotations/instances_train{year}.json": {"images": [], "categories": []},
                f"annotations/person_keypoints_val{year}.json": {"images": []},
                f"annotations/image_info_test{year}.json": {"images": []},
                f"train{year}/{prefix}9.jpg": b"",
                f"val{year}/{prefix}7.jpg": b"",
            },
            {
                f"train{year}/{prefix}9.jpg": (f"{prefix}9", "train", ("a dog",)),
                f"val{year}/{prefix}7.jpg": (f"{prefix}7", "val", ("a cat",)),
            },
        )
        for year, prefix in ((2014, "COCO_x2014_00000000000"), (2017, "00000000000"))
    },
    "Flickr30k, its authors": (
        {
            "results_20130124.token": "1.jpg#0\tA dog .\r\n1.jpg#1\tOne dog\n2.jpg#0\tA cat , #2 .",
            "readme.txt": "Flickr30k",
            "flickr30k-images/1.jpg": b"",
            "flickr30k-images/2.jpg": b"",
        },
        {
            "flickr30k-images/1.jpg": ("1", "train", ("A dog .", "One dog")),
            "flickr30k-images/2.jpg": ("2", "train", ("A cat , #2 .",)),
        },
    ),
    "Flickr30k, Kaggle": (
        {
            # The second row is the one that lacks a separator in the published file, too.
            "results.csv": "image_name| comment_number| comment\n1.jpg| 0| A dog .\n"
            '1.jpg| 4   A dog runs across the grass .\n2.jpg| 0| " Stop " , says a sign .\n',
            "flickr30k_images/1.jpg": b"",
            "flickr30k_images/2.jpg": b"",
        },
        {
            "flickr30k_images/1.jpg": ("1", "train", ("A dog .", "A dog runs across the grass .")),
            "flickr30k_images/2.jpg": ("2", "train", ('" Stop " , says a sign .',)),
        },
    ),
    "Flickr30k, Kaggle's archive in one folder": (
        {
            "flickr30k_images/results.csv": "image_name| comment_number| comment\n1.jpg| 0| A .\n",
            "flickr30k_images/flickr30k_images/1.jpg": b"",
        },
        {"flickr30k_images/flickr30k_images/1.jpg": ("1", "train", ("A .",))},
    ),
    "Flickr30k, Kaggle's newer file": (
        {
            "captions.txt": "image_name,comment_number,comment\n"
            '1.jpg,0," Two young , White males ."\n1.jpg,1, Two men .\n',
            "flickr30k_images/1.jpg": b"",
        },
        {"flickr30k_images/1.jpg": ("1", "train", ("Two young , White males .", "Two men ."))},
    ),
    "Flickr30k, Hugging Face": (
        {
            "flickr_annotations_30k.csv": "raw,sentids,split,filename,img_id\n"
            '"[""A dog ."", ""One \\""dog\\"" .""]","[0, 1]",train,1.jpg,0\n'
            "\"['A cat .']\",[2],val,2.jpg,1\n",
            "flickr30k-images/1.jpg": b"",
            "flickr30k-images/2.jpg": b"",
        },
        {
            "flickr30k-images/1.jpg": ("1", "train", ("A dog .", 'One "dog" .')),
            "flickr30k-images/2.jpg": ("2", "val", ("A cat .",)),
        },
    ),
    "STAIR Captions": (
        {
            "stair_captions_v1.2_train.json": coco((9, "COCO_train2014_000000000009.jpg", "犬")),
            "stair_captions_v1.2_val.json": coco((7, "COCO_val2014_000000000007.jpg", "猫")),
            "train2014/COCO_train2014_000000000009.jpg": b"",
            "val2014/COCO_val2014_000000000007.jpg": b"",
        },
        {
            "train2014/COCO_train2014_000000000009.jpg": (
                "COCO_train2014_000000000009",
                "train",
                ("犬",),
            ),
            "val2014/COCO_val2014_000000000007.jpg": ("COCO_val2014_000000000007", "val", ("猫",)),
        },
    ),
    "BLIP's lists": (
        {
            "coco_karpathy_train.json": [
                {"caption": "a dog", "image": "val2014/1.jpg", "image_id": "coco_1"},
                {"caption": "one dog", "image": "val2014/1.jpg", "image_id": "coco_1"},
            ],
            "coco_karpathy_val.json": [{"image": "val2014/2.jpg", "caption": ["a cat", "one cat"]}],
            "val2014/1.jpg": b"",
            "val2014/2.jpg": b"",
        },
        {
            "val2014/1.jpg": ("val2014/1", "train", ("a dog", "one dog")),
            "val2014/2.jpg": ("val2014/2", "val", ("a cat", "one cat")),
        },
    ),
    "img2dataset": (
        {
            "00000_stats.json": {"count": 2},
            "00000/000000000.jpg": b"",
            "00000/000000000.txt": "a dog",
            "00000/000000000.json": {"caption": "a dog", "key": "000000000"},
            "00001/000010000.jpg": b"",
            "00001/000010000.json": {"caption": "a cat", "key": "000010000"},
        },
        {
            "00000/000000000.jpg": ("00000/000000000", "train", ("a dog",)),
            "00001/000010000.jpg": ("00001/000010000", "train", ("a cat",)),
        },
    ),
    "a text for each photo, by splits": (
        {
            "train/a.png": b"",
            "train/a.txt": "a dog\n\none\u2028dog\n",  # a separator that is no end of a line
            "val/a.jpg": b"",
            "val/a.caption": "a cat",
        },
        {
            "train/a.png": ("train/a", "train", ("a dog", "one dog")),
            "val/a.jpg": ("val/a", "val", ("a cat",)),
        },
    ),
    "COCO's photos in images/": (
        {
            "annotations/captions_train2017.json": coco((9, "9.jpg", "a dog")),
            "annotations/captions_val2017.json": coco((7, "7.jpg", "a cat")),
            "images/train2017/9.jpg": b"",
            "images/val2017/7.jpg": b"",
        },
        {
            "images/train2017/9.jpg": ("9", "train", ("a dog",)),
            "images/val2017/7.jpg": ("7", "val", ("a cat",)),
        },
    ),
    "COCO, each archive in a folder of its name": (
        {
            "annotations_trainval2017/annotations/captions_train2017.json": coco(
                (9, "9.jpg", "a dog")
            ),
            "annotations_trainval2017/annotations/captions_val2017.json": coco(
                (7, "7.jpg", "a cat")
            ),
            "annotations_trainval2017/annotations/instances_val2017.json": {},
            "train2017/train2017/9.jpg": b"",
            "val2017/val2017/7.jpg": b"",
        },
        {
            "train2017/train2017/9.jpg": ("9", "train", ("a dog",)),
            "val2017/val2017/7.jpg": ("7", "val", ("a cat",)),
        },
    ),
    "COCO, its annotations two folders deep": (
        {
            "Annotations/annotations/captions_val2017.json": coco((7, "7.jpg", "a cat")),
            "val2017/7.jpg": b"",
        },
        {"val2017/7.jpg": ("7", "val", ("a cat",))},
    ),
    "COCO 2014's captions with the photos of COCO 2017": (
        {
            "dataset_coco.json": {
                "images": [
                    {"filename": "COCO_val2014_000000000007.jpg", "filepath": "val2014"}
                    | {"cocoid": 7, "split": "test", "sentences": [{"raw": "A cat"}]}
                ],
            },
            "train2017/000000000007.jpg": b"",
        },
        {"train2017/000000000007.jpg": ("7", "test", ("A cat",))},
    ),
    "one's own, a captions file in the folder of each split": (
        {
            "train/captions.csv": "image,caption\na.jpg,a dog\n",
            "train/images/a.jpg": b"",
            "val/captions.jsonl": '{"image": "a.jpg", "text": "a cat"}',
            "val/a.jpg": b"",
        },
        {
            "train/images/a.jpg": ("train/a", "train", ("a dog",)),
            "val/a.jpg": ("val/a", "val", ("a cat",)),
        },
    ),
    "imagefolder with a column for each caption": (
        {
            "dev/metadata.csv": "file_name,split,caption_0,caption_1\na.jpg,dev,a cat,one cat\n",
            "dev/a.jpg": b"",
            "train/metadata.csv": "file_name,split,caption_0,caption_1\nb.jpg,train,a dog,\n",
            "train/b.jpg": b"",
        },
        {
            "dev/a.jpg": ("a", "val", ("a cat", "one cat")),
            "train/b.jpg": ("b", "train", ("a dog",)),
        },
    ),
    "imagefolder with one file for all splits": (
        {
            "metadata.jsonl": '{"file_name": "train/a.jpg", "text": "a dog"}\n'
            '{"file_name": "Test/b.jpg", "text": "a cat"}\n',
            "train/a.jpg": b"",
            "Test/b.jpg": b"",
        },
        {
            "train/a.jpg": ("train/a", "train", ("a dog",)),
            "Test/b.jpg": ("Test/b", "test", ("a cat",)),
        },
    ),
    "imagefolder with metadata.csv": (
        {
            "train/metadata.csv": "file_name,text\na.jpg,a dog\n",
            "train/a.jpg": b"",
            "validation/metadata.csv": "file_name,text\na.jpg,a cat\n",
            "validation/a.jpg": b"",
            "test/metadata.csv": "file_name,text\nx/b.jpg,a bird\n",
            "test/x/b.jpg": b"",
            "README.md": "---\n",
            "dataset_infos.json": {},
        },
        {
            "train/a.jpg": ("train/a", "train", ("a dog",)),
            "validation/a.jpg": ("val/a", "val", ("a cat",)),
            "test/x/b.jpg": ("test/x/b", "test", ("a bird",)),
        },
    ),
    "imagefolder with metadata.jsonl": (
        {
            "data/train/metadata.jsonl": '{"file_name": "a.jpg", "text": "a dog"}',
            "data/train/a.jpg": b"",
            "data/valid/metadata.jsonl": '{"file_name": "b.jpg", "text": "a cat"}',
            "data/valid/b.jpg": b"",
        },
        {
            "data/train/a.jpg": ("a", "train", ("a dog",)),
            "data/valid/b.jpg": ("b", "val", ("a cat",)),
        },
    ),
    **{
        f"Karpathy's {name}": (
            {
                f"dataset_{name}.json": {
                    "dataset": name,
                    "images": [
                        {"filename": "1.jpg", "split": "restval", "sentences": [{"raw": "A dog"}]}
                        | ({"filepath": "val2014", "cocoid": 41} if name == "coco" else {}),
                        {"filename": "2.jpg", "split": "test", "sentences": [{"raw": "A cat"}]}
                        | ({"filepath": "val2014", "cocoid": 42} if name == "coco" else {}),
                        {"filename": "3.jpg", "split": "val", "sentences": [{"raw": "A bird"}]}
                        | ({"filepath": "val2014", "cocoid": 43} if name == "coco" else {}),
                    ],
                },
                **{f"{photos}/{n}.jpg": b"" for n in (1, 2, 3)},
            },
            {
                f"{photos}/1.jpg": (ids[0], "train", ("A dog",)),
                f"{photos}/2.jpg": (ids[1], "test", ("A cat",)),
                f"{photos}/3.jpg": (ids[2], "val", ("A bird",)),
            },
        )
        for name, photos, ids in (
            ("flickr8k", "Flicker8k_Dataset", "123"),
            ("flickr30k", "flickr30k-images", "123"),
            ("coco", "val2014", ("41", "42", "43")),
        )
    },
    "VizWiz-Captions": (
        {
            "annotations/train.json": coco((0, "VizWiz_train_00000000.jpg", "A can .")),
            "annotations/val.json": coco((0, "VizWiz_val_00000000.jpg", "A box .")),
            "annotations/test.json": {"images": [{"id": 1, "file_name": "VizWiz_test_0.jpg"}]},
            "train/VizWiz_train_00000000.jpg": b"",
            "val/VizWiz_val_00000000.jpg": b"",
        },
        {
            "train/VizWiz_train_00000000.jpg": ("VizWiz_train_00000000", "train", ("A can .",)),
            "val/VizWiz_val_00000000.jpg": ("VizWiz_val_00000000", "val", ("A box .",)),
        },
    ),
    "VizWiz-Captions, validation alone": (
        {
            "annotations/val.json": coco((0, "VizWiz_val_00000000.jpg", "A box .")),
            "val/VizWiz_val_00000000.jpg": b"",
        },
        {"val/VizWiz_val_00000000.jpg": ("VizWiz_val_00000000", "val", ("A box .",))},
    ),
    "nocaps": (
        {
            "nocaps_val_4500_captions.json": coco((0, "0013ea2087020901.jpg", "A baby .")),
            "nocaps_test_image_info.json": {"images": [{"id": 0, "file_name": "1.jpg"}]},
            "val/0013ea2087020901.jpg": b"",
        },
        {"val/0013ea2087020901.jpg": ("0013ea2087020901", "val", ("A baby .",))},
    ),
    "TextCaps": (
        {
            "TextCaps_0.1_train.json": textcaps("train", "0a", "A sign .", "A red sign ."),
            "TextCaps_0.1_val.json": textcaps("val", "0b", "A book ."),
            "TextCaps_0.1_test.json": textcaps("test", "0c"),
            "train_images/0a.jpg": b"",
            "train_images/0b.jpg": b"",
            "test_images/0c.jpg": b"",
        },
        {
            "train_images/0a.jpg": ("0a", "train", ("A sign .", "A red sign .")),
            "train_images/0b.jpg": ("0b", "val", ("A book .",)),
        },
    ),
    "Localized Narratives of COCO, two shards": (
        {
            "coco_train_localized_narratives-00000-of-00002.jsonl": narrative(
                "mscoco_train2017", "9", "In this image we can see a dog."
            ),
            "coco_train_localized_narratives-00001-of-00002.jsonl": narrative(
                "mscoco_train2017", "9", "A dog on grass."
            ),
            "coco_val_localized_narratives.jsonl": narrative("mscoco_val2017", "7", "A cat."),
            "train2017/000000000009.jpg": b"",
            "val2017/000000000007.jpg": b"",
        },
        {
            "train2017/000000000009.jpg": (
                "000000000009",
                "train",
                ("In this image we can see a dog.", "A dog on grass."),
            ),
            "val2017/000000000007.jpg": ("000000000007", "val", ("A cat.",)),
        },
    ),
    "Localized Narratives of Open Images": (
        {
            "annotations/open_images_train_v6_localized_narratives-00000-of-00010.jsonl": narrative(
                "open_images_train_v6", "0a", "A dog."
            ),
            "annotations/open_images_validation_localized_narratives.jsonl": narrative(
                "open_images_validation", "0b", "A cat."
            ),
            "train/0a.jpg": b"",
            "validation/0b.jpg": b"",
        },
        {
            "train/0a.jpg": ("0a", "train", ("A dog.",)),
            "validation/0b.jpg": ("0b", "val", ("A cat.",)),
        },
    ),
    "one's own, a file for each split": (
        {
            "captions_train.csv": "image,caption\na.jpg,a dog\n",
            "captions_dev.csv": "image,caption\nb.jpg,a cat\n",
            "images/a.jpg": b"",
            "images/b.jpg": b"",
        },
        {"images/a.jpg": ("a", "train", ("a dog",)), "images/b.jpg": ("b", "val", ("a cat",))},
    ),
}
