// cc score.c -lonnxruntime -o score && ./score pump.onnx < samples.txt: C numbers a line, "nan" = missing
#include <onnxruntime_c_api.h>
#include <stdio.h>
#define C 6                                        // channels
#define S 3                                        // states, as `edgernn inspect` lists them
static const char *in[] = {"x", "state.layer.0.h", "state.forecast.next", "state.forecast.window"};
static const char *out[] = {"score", "state.layer.0.h.next", "state.forecast.next.next", "state.forecast.window.next"};
static const int64_t width[S] = {32, 12, 18};      // numbers in each
int main(int argc, char **argv) {
  const OrtApi *ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  OrtEnv *env; OrtSessionOptions *options; OrtSession *session; OrtMemoryInfo *cpu; OrtAllocator *heap;
  ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgernn", &env);
  ort->CreateSessionOptions(&options);
  if (ort->CreateSession(env, argv[1], options, &session)) return 1;
  ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &cpu);
  ort->GetAllocatorWithDefaultOptions(&heap);
  OrtValue *value[1 + S] = {0}, *said[1 + S];
  float x[C] = {0}, *score, *memory;
  ort->CreateTensorWithDataAsOrtValue(cpu, x, sizeof x, (int64_t[]){1, 1, C}, 3, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value[0]);
  for (int s = 0; s < S; s++) {                    // a fresh stream: zeros
    ort->CreateTensorAsOrtValue(heap, (int64_t[]){1, width[s]}, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value[1 + s]);
    ort->GetTensorMutableData(value[1 + s], (void **)&memory);
    for (int i = 0; i < width[s]; i++) memory[i] = 0;
  }
  for (int c = 0; scanf("%f", &x[c]) == 1; c = (c + 1) % C) {
    if (c < C - 1) continue;
    for (int s = 0; s <= S; s++) said[s] = NULL;
    if (ort->Run(session, NULL, in, (const OrtValue *const *)value, 1 + S, out, 1 + S, said)) return 1;
    ort->GetTensorMutableData(said[0], (void **)&score);
    printf("%.9g\n", *score);
    ort->ReleaseValue(said[0]);
    for (int s = 1; s <= S; s++) ort->ReleaseValue(value[s]), value[s] = said[s];  // what it remembers
  }
}
