/* A SavedModel of `export_streaming` in C, run by `serving.py` as the stand-in for a serving binary.

   step MODEL STEPS FEATURES UNITS FEED FETCH [FEED_OF_STATE FETCH_OF_STATE]...

   Takes STEPS times FEATURES numbers from stdin, one row, and prints what comes out of each step;
   states start from UNITS zeros. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

enum { MOST = 16 };

static void check(TF_Status *status)
{
    if (TF_GetCode(status) != TF_OK) {
        fprintf(stderr, "%s\n", TF_Message(status));
        exit(1);
    }
}

static TF_Output tensor_named(TF_Graph *graph, char *name)
{
    char *colon = strchr(name, ':');
    *colon = 0;
    TF_Output output = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
    if (!output.oper) {
        fprintf(stderr, "no operation %s\n", name);
        exit(1);
    }
    return output;
}

static TF_Tensor *row_of_zeros(int64_t width)
{
    int64_t shape[] = {1, width};
    TF_Tensor *tensor = TF_AllocateTensor(TF_FLOAT, shape, 2, width * sizeof(float));
    memset(TF_TensorData(tensor), 0, TF_TensorByteSize(tensor));
    return tensor;
}

int main(int count, char **arguments)
{
    int steps = atoi(arguments[2]), features = atoi(arguments[3]), units = atoi(arguments[4]);
    int tensors = (count - 5) / 2;
    const char *tags[] = {"serve"};
    TF_Status *status = TF_NewStatus();
    TF_Graph *graph = TF_NewGraph();
    TF_Session *session = TF_LoadSessionFromSavedModel(
        TF_NewSessionOptions(), NULL, arguments[1], tags, 1, graph, NULL, status);
    check(status);

    TF_Output feeds[MOST], fetches[MOST];
    TF_Tensor *taken[MOST], *made[MOST];
    for (int i = 0; i < tensors; i++) {
        feeds[i] = tensor_named(graph, arguments[5 + 2 * i]);
        fetches[i] = tensor_named(graph, arguments[6 + 2 * i]);
        taken[i] = row_of_zeros(i ? units : features);
    }
    for (int t = 0; t < steps; t++) {
        float *x = TF_TensorData(taken[0]);
        for (int i = 0; i < features; i++)
            if (scanf("%f", x + i) != 1)
                return 1;
        TF_SessionRun(
            session, NULL, feeds, taken, tensors, fetches, made, tensors, NULL, 0, NULL, status);
        check(status);
        float *y = TF_TensorData(made[0]);
        for (size_t i = 0; i < TF_TensorByteSize(made[0]) / sizeof(float); i++)
            printf("%.9g ", y[i]);
        printf("\n");
        TF_DeleteTensor(made[0]);
        for (int i = 1; i < tensors; i++) {
            TF_DeleteTensor(taken[i]);
            taken[i] = made[i];
        }
    }
    return 0;
}
